"""Arrays of a feature cache as the bytes that are stored, and back; the bytes are those of the PyTorch front end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from frostline._core.errors import CacheError
from frostline.features.columns import BoundaryValue
from frostline.jax._arrays import bytes_of

Array = np.ndarray[Any, Any]
_STEPS, _LOWEST = 255, -128


def of_bytes(room: bytearray, dtype: str, shape: tuple[int, ...]) -> Array:
    """The array whose bytes these are; no copy is made.

    Example:
        >>> of_bytes(bytearray([128, 63]), "bfloat16", (1,)).tolist()
        [1.0]
    """
    return np.frombuffer(room, dtype=jnp.dtype(dtype)).reshape(shape)


def encoded(value: BoundaryValue, number: int, batch: Array) -> dict[str, memoryview]:
    """The columns of the value with this number, from its rows.

    Raises:
        CacheError: it is to be stored in steps, but is not finite.
    """
    if not value.is_scaled:
        return {f"value.{number}": bytes_of(batch.astype(jnp.dtype(value.stored)))}
    if not np.isfinite(batch).all():
        found = (f"nan: {int(np.isnan(batch).sum())}", f"inf: {int(np.isinf(batch).sum())}")
        problem = f"stores {value.name!r} in {_STEPS + 1} steps between two finite numbers, but it is not finite."
        raise CacheError("dtype='int8'", problem, found, "Store it as it is, or as bfloat16: dtype='bfloat16'.")
    steps, step, least = _in_steps(batch.reshape(len(batch), -1))
    return {f"value.{number}": bytes_of(steps), f"step.{number}": bytes_of(step), f"least.{number}": bytes_of(least)}


def decoded(value: BoundaryValue, number: int, rooms: Mapping[str, bytearray], rows: int) -> Array:
    """The rows of one value, in the dtype in which it was computed."""
    dtype = jnp.dtype(value.dtype)
    batch = of_bytes(rooms[f"value.{number}"], value.stored, (rows, *value.shape))
    if not value.is_scaled:
        return batch.astype(dtype, copy=False)
    each = (rows, *(1 for _ in value.shape))
    step = of_bytes(rooms[f"step.{number}"], "float32", each).astype(dtype)
    least = of_bytes(rooms[f"least.{number}"], "float32", each).astype(dtype)
    found: Array = (batch.astype(dtype) - dtype.type(_LOWEST)) * step + least
    return found


def _in_steps(rows: Array) -> tuple[Array, Array, Array]:
    """Rows as integers from -128 to 127, and for each row the size of a step and the least number."""
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
