"""What JAX cannot look into: objects that are no pytrees, and functions over arrays."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

import jax

from frostline._core.errors import LayerError
from frostline.jax._arrays import described
from frostline.jax._uses.slots import children


def check_transparent(layer: Any) -> None:
    """Sees to it that what a use is to stop can be stopped.

    Raises:
        LayerError: the layer is no pytree, or has a function in it over arrays that are being traced.

    Example:
        >>> check_transparent(jnp.tanh)
        >>> check_transparent(jax.tree_util.Partial(jnp.multiply, jnp.ones(2)))
    """
    owner = getattr(layer, "__self__", layer)
    if _is_opaque(owner):
        raise LayerError(
            f"Frozen({type(owner).__name__})",
            f"holds {described(owner)} that is no pytree: JAX cannot see its parameters, and they would train.",
            "Register its class, jax.tree_util.register_dataclass; linen and Haiku have a Frozen in "
            "frostline.integrations.",
        )
    if any(map(_is_over_arrays, jax.tree.leaves(layer))):
        raise LayerError(
            "Frozen(function)",
            "holds a function over arrays that JAX cannot see, and they would train.",
            "Make them visible: Frozen(jax.tree_util.Partial(function, params)).",
        )


def _is_opaque(thing: Any) -> bool:
    """Whether it can be called, and is neither a pytree nor a function; those have a name."""
    is_function = hasattr(thing, "__name__") or isinstance(thing, functools.partial)
    return callable(thing) and not is_function and children(thing) is None


def _is_over_arrays(function: Any, outer: tuple[Any, ...] = ()) -> bool:
    """Whether a function brings arrays of its own that are being traced; all others are constants anyhow."""
    if isinstance(function, jax.core.Tracer) or not callable(function) or any(function is other for other in outer):
        return False
    behind = jax.tree.leaves(list(_behind(function)))
    return any(isinstance(leaf, jax.core.Tracer) or _is_over_arrays(leaf, (*outer, function)) for leaf in behind)


def _behind(function: Any) -> Iterator[Any]:
    if isinstance(function, functools.partial):
        yield from (function.func, function.args, function.keywords)
    elif isinstance(function, MethodType):
        yield from (function.__func__, function.__self__)
    elif isinstance(function, FunctionType):
        yield from filter(None, map(_content, function.__closure__ or ()))
    yield getattr(function, "__wrapped__", None)


def _content(cell: CellType) -> Any:
    try:
        return [cell.cell_contents]
    except ValueError:  # a function that speaks of itself, and has no name yet
        return None
