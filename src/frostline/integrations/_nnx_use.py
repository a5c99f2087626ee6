"""Modules of Flax NNX that compute as constants: frozen uses, and modules that are held in place.

Each is the module with another class: a subclass of the module's own, made once for each. Nothing is added to the
graph, so that paths, variables and checkpoints are those of the module.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from types import new_class
from typing import Any, final

import jax
from flax import nnx

from frostline._core.errors import LayerError
from frostline.integrations._nnx_constant import PLAIN, as_constant, call, constant, plain_class, sharing
from frostline.jax._arrays import described


class ConstantModule(nnx.Module):
    """A module whose calls, and those of its methods, compute as a constant."""

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return call(self, args, kwargs)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name in vars(self) or not _is_computed(type(self), name):
            return super().__getattribute__(name)
        return getattr(constant(self), name)

    def __reduce__(self) -> tuple[Any, ...]:
        base = Frozen if isinstance(self, Frozen) else HeldModule
        return _empty, (base, plain_class(type(self))), vars(self).copy()


class _Uses(type(nnx.Module)):  # type: ignore[misc]
    """Calling the class gives a use of a module that is there, and makes none."""

    def __call__(cls, layer: Any) -> Any:
        if not isinstance(layer, nnx.Module):
            fix = "Freeze the modules of a container one by one: [Frozen(block) for block in blocks]."
            raise LayerError("Frozen(layer)", f"holds {described(layer)}, and a use is of an nnx.Module.", fix)
        return _use_of(layer)


class Frozen(ConstantModule, metaclass=_Uses):
    """A frozen use of a module: differentiable with respect to its input, constant with respect to the module.

    It shares everything with the module, so it sees what is written there, and is an instance of the module's class.
    A call stops the gradients, is in evaluation mode and moves nothing: no parameter, no statistics, no counts of
    random numbers, no mode. The same module trains wherever it is used without ``Frozen``.
    ``Frozen(Frozen(layer))`` is ``Frozen(layer)``.

    Args:
        layer: an ``nnx.Module``.

    Raises:
        LayerError: `layer` is not a module.

    Source:
        https://github.com/FluxML/Flux.jl/issues/1931

    Example:
        >>> layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> gradient = nnx.grad(lambda layer: Frozen(layer)(jax.numpy.ones(2)).sum())(layer)
        >>> gradient["bias"][...].tolist()
        [0.0, 0.0, 0.0]
    """

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not vars(self)["_pytree__nodes"].get(name, False):
            return found
        return jax.tree.map(_through, found, is_leaf=lambda node: isinstance(node, nnx.Module | nnx.Variable))

    # When a transformation ends it empties modules and fills them again. What a use shows is the module's: it is
    # filled there, and by the use only where the use is new.
    def _graph_node_clear(self) -> None:
        pass

    def _graph_node_init(self, attributes: Iterable[tuple[str | int, Any]]) -> None:
        for name, value in attributes:
            vars(self).setdefault(str(name), value)


@final
class HeldModule(ConstantModule):
    """A module that is frozen in place, whole, until it is thawed."""


def hold(module: nnx.Module, *, is_held: bool) -> None:
    """Holds a module, or lets it go; it stays the same object."""
    plain = plain_class(type(module))
    object.__setattr__(module, "__class__", _class_of(HeldModule, plain) if is_held else plain)


@cache
def _class_of(base: type[ConstantModule], plain: Any) -> Any:
    return new_class(
        f"{base.__name__}[{plain.__name__}]",
        (base, plain),
        {"pytree": plain._pytree__is_pytree},
        lambda body: body.update({PLAIN: plain, "__module__": plain.__module__, "__doc__": plain.__doc__}),
    )


def _is_computed(kind: type, name: str) -> bool:
    # Methods such as append or train do not compute a layer.
    bases = [base for base in (nnx.Module, nnx.List, nnx.Dict) if issubclass(kind, base)]
    return hasattr(kind, name) and not any(hasattr(base, name) for base in bases)


def _use_of(module: nnx.Module) -> Any:
    kind = type(module)
    return module if issubclass(kind, Frozen) else sharing(module, _class_of(Frozen, plain_class(kind)))


def _through(node: Any) -> Any:
    """What is read through a use: its modules as uses, its variables themselves, or constants while traced."""
    if isinstance(node, nnx.Module):
        return _use_of(node)
    is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(node))
    return as_constant(node) if is_traced else node


def _empty(base: type[ConstantModule], plain: type) -> Any:
    return object.__new__(_class_of(base, plain))
