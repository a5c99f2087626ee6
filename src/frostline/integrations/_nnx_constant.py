"""A module of Flax NNX as a constant: a copy for one call."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

from frostline._core.errors import LayerError
from frostline.jax._arrays import described
from frostline.jax._uses.window import stopped

# Where a class that is made of another one says of which.
PLAIN = "_frostline_class"


def plain_class(kind: Any) -> Any:
    """The class of a module, but for being frozen."""
    return getattr(kind, PLAIN, kind)


def sharing(module: nnx.Module, kind: Any) -> Any:
    """A module of this class that is the other one in all else: what is written to one is written to both."""
    other = object.__new__(kind)
    object.__setattr__(other, "__dict__", vars(module))
    return other


def constant(module: nnx.Module) -> Any:
    """A copy of a module that shares its arrays: in evaluation mode, and no gradient reaches the module.

    What the copy writes, statistics or counts of random numbers, goes with it; only intermediates, which
    ``nnx.capture`` collects, are handed on.
    """
    graphdef, state = nnx.split(sharing(module, plain_class(type(module))), graph=True)
    state = jax.tree.map(as_constant, state, is_leaf=lambda node: isinstance(node, nnx.Variable))
    copy = nnx.merge(graphdef, state, copy=False)
    for _, node in list(nnx.iter_modules(copy, graph=True)):
        object.__setattr__(node, "__class__", plain_class(type(node)))
    copy.eval()
    return copy


def call(module: nnx.Module, args: Any, kwargs: Any) -> Any:
    """What a module computes as a constant.

    Raises:
        LayerError: it cannot be called.
    """
    copy = constant(module)
    if not callable(copy):
        fix = "Call the method that it has, as use.encode(x), or give the class __call__."
        raise LayerError("Frozen(layer)(...)", f"calls {described(copy)}, which cannot be called.", fix)
    return copy(*args, **kwargs)


def as_constant(leaf: Any) -> Any:
    """A variable, or an array, through which no gradient passes."""
    if isinstance(leaf, nnx.Intermediate):
        return leaf
    return leaf.copy(jax.tree.map(stopped, leaf.get_raw_value())) if isinstance(leaf, nnx.Variable) else stopped(leaf)
