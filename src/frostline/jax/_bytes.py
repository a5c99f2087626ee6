"""The bytes of an array."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def bytes_of(array: Any) -> memoryview:
    """The elements of an array in order, as bytes; copied only if they lie on another device or have gaps.

    Example:
        >>> bytes_of(jnp.array([1.0, -0.0])).hex()
        '0000803f00000080'
    """
    return flat_bytes(plain(array))


def flat_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """The same for an array in plain memory."""
    return array.reshape(-1).view(np.uint8).data


def plain(array: Any) -> np.ndarray[Any, Any]:
    """The same numbers in plain memory; of a key of random numbers, what it consists of."""
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.extended)
    # Not np.ascontiguousarray: it makes a row of a single number.
    return np.asarray(jax.random.key_data(array) if is_key else array, order="C")
