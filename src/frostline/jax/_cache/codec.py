"""Arrays of a feature cache, as the bytes that are stored and back; numbers are those of the PyTorch front end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from frostline._core.errors import CacheError
from frostline.features.columns import Column, Value
from frostline.jax._arrays import flat_bytes

Array = np.ndarray[Any, Any]
_STEPS, _LOWEST = 255, -128


def raw(array: Array) -> memoryview:
    """The bytes of an array; of a copy if it has gaps."""
    return flat_bytes(np.asarray(array, order="C"))


def of_bytes(room: bytearray, dtype: str, shape: tuple[int, ...]) -> Array:
    """The array whose bytes these are; no copy is made.

    Example:
        >>> of_bytes(bytearray([128, 63]), "bfloat16", (1,))
        array([1], dtype=bfloat16)
    """
    return np.frombuffer(room, dtype=jnp.dtype(dtype)).reshape(shape)


def encoded(value: Value, number: int, batch: Array) -> dict[str, memoryview]:
    """The columns of one value of a batch.

    Args:
        value: how it is stored.
        number: which of the values it is.
        batch: its rows.

    Raises:
        CacheError: it is to be stored in steps and is not finite.
    """
    if not value.is_scaled:
        return {f"value.{number}": raw(batch.astype(jnp.dtype(value.stored)))}
    if not np.isfinite(batch).all():
        found = (f"nan: {int(np.isnan(batch).sum())}", f"inf: {int(np.isinf(batch).sum())}")
        problem = (
            f"stores {value.name!r} in {_STEPS + 1} steps between its least and its greatest number, but has none."
        )
        raise CacheError("dtype='int8'", problem, found, "Store it as it is, or as bfloat16: dtype='bfloat16'.")
    steps, step, least = _in_steps(batch.reshape(len(batch), -1))
    return {f"value.{number}": raw(steps), f"step.{number}": raw(step), f"least.{number}": raw(least)}


def decoded(value: Value, number: int, rooms: Mapping[str, bytearray], rows: int) -> Array:
    """The rows of one value, in the dtype as which it was computed."""
    dtype = jnp.dtype(value.dtype)
    batch = of_bytes(rooms[f"value.{number}"], value.stored, (rows, *value.shape))
    if not value.is_scaled:
        return batch.astype(dtype, copy=False)
    each = (rows, *(1 for _ in value.shape))
    step = of_bytes(rooms[f"step.{number}"], "float32", each).astype(dtype)
    least = of_bytes(rooms[f"least.{number}"], "float32", each).astype(dtype)
    found: Array = (batch.astype(dtype) - dtype.type(_LOWEST)) * step + least
    return found


def rest_of(column: Column, rooms: Mapping[str, bytearray], rows: int) -> Array:
    """The rows of one leaf beside the values."""
    return of_bytes(rooms[column.name], column.dtype, (rows, *column.shape))


def _in_steps(rows: Array) -> tuple[Array, Array, Array]:
    """Rows as whole numbers from -128 to 127, the size of a step, and the least number, of each row."""
    if not rows.shape[1]:
        nothing = np.zeros(len(rows), np.float32)
        return rows.astype(np.int8), nothing, nothing
    rows = rows.astype(np.float64 if rows.dtype == np.float64 else np.float32)
    least, greatest = rows.min(1), rows.max(1)
    step = ((greatest - least) / _STEPS).astype(np.float32)
    # A row of one number has no steps; all of it is its least number.
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0).astype(rows.dtype)
    steps = np.clip(np.round((rows - least[:, None]) * inverse[:, None]), 0, _STEPS) + _LOWEST
    return steps.astype(np.int8), step, least.astype(np.float32)
