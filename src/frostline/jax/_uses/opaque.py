"""Layers that JAX cannot look into: objects that are not pytrees, and functions that close over arrays."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any

import jax

from frostline._core.errors import LayerError
from frostline.jax._arrays import described
from frostline.jax._uses.layout import children


def check_transparent(layer: Any) -> None:
    """Checks that a frozen use can stop every gradient of the layer.

    Raises:
        LayerError: the layer is not a pytree, or contains a function that closes over traced arrays.

    Example:
        >>> check_transparent(jnp.tanh)
        >>> check_transparent(jax.tree_util.Partial(jnp.multiply, jnp.ones(2)))
    """
    owner = getattr(layer, "__self__", layer)
    if _is_opaque(owner):
        raise LayerError(
            f"Frozen({type(owner).__name__})",
            f"holds {described(owner)}, which is not a pytree: JAX cannot see its parameters, and they would train.",
            "Register its class with jax.tree_util.register_dataclass. For linen and Haiku use the Frozen of "
            "frostline.integrations.",
        )
    if any(map(_is_over_arrays, jax.tree.leaves(layer))):
        raise LayerError(
            "Frozen(function)",
            "holds a function that closes over arrays. JAX cannot see them, and they would train.",
            "Pass them as arguments: Frozen(jax.tree_util.Partial(function, params)).",
        )


def _is_opaque(thing: Any) -> bool:
    """Whether an object can be called and is neither a pytree nor a function; functions have a name."""
    is_function = hasattr(thing, "__name__") or isinstance(thing, functools.partial)
    return callable(thing) and not is_function and children(thing) is None


def _is_over_arrays(function: Any, outer: tuple[Any, ...] = ()) -> bool:
    """Whether a function closes over traced arrays; all other arrays are constants in any case."""
    if isinstance(function, jax.core.Tracer) or not callable(function) or any(function is other for other in outer):
        return False
    behind = jax.tree.leaves(list(_closed_over(function)))
    return any(isinstance(leaf, jax.core.Tracer) or _is_over_arrays(leaf, (*outer, function)) for leaf in behind)


def _closed_over(function: Any) -> Iterator[Any]:
    if isinstance(function, functools.partial):
        yield from (function.func, function.args, function.keywords)
    elif isinstance(function, MethodType):
        yield from (function.__func__, function.__self__)
    elif isinstance(function, FunctionType):
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # an empty cell: a recursive function that is still being defined
                yield cell.cell_contents
    yield getattr(function, "__wrapped__", None)
