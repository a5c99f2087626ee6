"""Flax NNX modules that compute as constants: frozen uses, and held modules.

Each is the module with another class, a generated subclass of its own class. The graph gets no new nodes, so paths,
variables and checkpoints are those of the module.
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
    """A module that computes as a constant, in calls of the module and of its methods."""

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
    """The metaclass of `Frozen`: calling the class returns a use of an existing module."""

    def __call__(cls, layer: Any) -> Any:
        if not isinstance(layer, nnx.Module):
            fix = "Freeze the modules of a container one by one: [Frozen(block) for block in blocks]."
            raise LayerError("Frozen(layer)", f"holds {described(layer)}, but a frozen use takes an nnx.Module.", fix)
        return _use_of(layer)


class Frozen(ConstantModule, metaclass=_Uses):
    """A frozen use of a module: differentiable with respect to its input, constant with respect to the module.

    It shares everything with the module, including later writes, and is an instance of the module's class. A call stops
    the gradients, runs in evaluation mode and changes nothing: no parameters, statistics, random counts or modes. The
    same module trains wherever it is used without ``Frozen``.
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

    # At its end a transformation empties modules and fills them again. A use shares the attributes of its module, which
    # fills them itself; the use fills them only if it is new.
    def _graph_node_clear(self) -> None:
        pass

    def _graph_node_init(self, attributes: Iterable[tuple[str | int, Any]]) -> None:
        for name, value in attributes:
            vars(self).setdefault(str(name), value)


@final
class HeldModule(ConstantModule):
    """A held module: all of its parameters are frozen, until it is thawed."""


def hold(module: nnx.Module, *, is_held: bool) -> None:
    """Holds a module or releases it; it stays the same object."""
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
    # Methods such as append or train do not compute an output.
    bases = [base for base in (nnx.Module, nnx.List, nnx.Dict) if issubclass(kind, base)]
    return hasattr(kind, name) and not any(hasattr(base, name) for base in bases)


def _use_of(module: nnx.Module) -> Any:
    kind = type(module)
    return module if issubclass(kind, Frozen) else sharing(module, _class_of(Frozen, plain_class(kind)))


def _through(node: Any) -> Any:
    """Returns an attribute as read through a use: modules as uses, variables unchanged, or constants while traced."""
    if isinstance(node, nnx.Module):
        return _use_of(node)
    is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(node))
    return as_constant(node) if is_traced else node


def _empty(base: type[ConstantModule], plain: type) -> Any:
    return object.__new__(_class_of(base, plain))
