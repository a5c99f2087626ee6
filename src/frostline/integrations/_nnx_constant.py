"""Flax NNX modules as constants: a copy for one call."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from frostline._core.errors import LayerError
from frostline.jax._arrays import described
from frostline.jax._uses.window import stopped

# The attribute in which a generated class keeps the class from which it was generated.
PLAIN = "_frostline_class"


def plain_class(kind: Any) -> Any:
    """Returns the original class of a module, which may be a frozen use or held."""
    return getattr(kind, PLAIN, kind)


def sharing(module: nnx.Module, kind: Any) -> Any:
    """Returns an object of this class that shares all attributes with a module."""
    other = object.__new__(kind)
    object.__setattr__(other, "__dict__", vars(module))
    return other


def constant(module: nnx.Module) -> Any:
    """Returns a copy of a module that shares its arrays, is in evaluation mode and passes no gradient to the module.

    Statistics and random counts that the copy writes are lost with it; only intermediates, which ``nnx.capture``
    collects, reach the module.
    """
    graphdef, state = nnx.split(sharing(module, plain_class(type(module))), graph=True)
    state = jax.tree.map(as_constant, state, is_leaf=lambda node: isinstance(node, nnx.Variable))
    copy = nnx.merge(graphdef, state, copy=False)
    for _, node in list(nnx.iter_modules(copy, graph=True)):
        object.__setattr__(node, "__class__", plain_class(type(node)))
    copy.eval()
    return copy


def call(module: nnx.Module, args: Any, kwargs: Any) -> Any:
    """Calls a module as a constant.

    Raises:
        LayerError: the module cannot be called.
    """
    copy = constant(module)
    if not callable(copy):
        fix = "Call a method of it, such as use.encode(x), or define __call__ in its class."
        raise LayerError("Frozen(layer)(...)", f"calls {described(copy)}, which cannot be called.", fix)
    return copy(*args, **kwargs)


def as_constant(leaf: Any) -> Any:
    """Returns a variable or an array through which no gradient passes."""
    if isinstance(leaf, nnx.Intermediate):
        return leaf
    return leaf.copy(jax.tree.map(stopped, leaf.get_raw_value())) if isinstance(leaf, nnx.Variable) else stopped(leaf)
