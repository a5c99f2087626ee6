"""Arrays and parameters: which leaves are one, and their bytes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ARRAYS = (jax.Array, np.ndarray)
_SHAPED = (*ARRAYS, np.generic, jax.ShapeDtypeStruct)


def is_param(leaf: Any) -> bool:
    """Whether training would move a leaf: a floating or complex array, not an integer and not a Python number.

    Example:
        >>> is_param(jnp.ones(2)), is_param(np.ones(2, np.float16)), is_param(jnp.arange(2)), is_param(0.5)
        (True, True, False, False)
    """
    return isinstance(leaf, _SHAPED) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def has_bytes(leaf: Any) -> bool:
    """Whether a leaf has bytes that can be compared: an array or a NumPy number, not a shape and not an object.

    Example:
        >>> has_bytes(jnp.ones(2)), has_bytes(np.float32(1)), has_bytes(np.array([None])), has_bytes(0.5)
        (True, True, False, False)
    """
    is_there = isinstance(leaf, (*ARRAYS, np.generic))
    return is_there and not (isinstance(leaf.dtype, np.dtype) and leaf.dtype.hasobject)


def nbytes(leaf: Any) -> int:
    """The bytes of an array; 0 for anything else."""
    is_sized = isinstance(leaf, _SHAPED) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    return int(leaf.size) * leaf.dtype.itemsize if is_sized else 0


def described(thing: Any) -> str:
    """Describes an object in a few words.

    Example:
        >>> described(jnp.ones((2, 3))), described({"w": 1}), described(None)
        ('a float32 array of shape (2, 3)', 'a dict', 'None')
    """
    if thing is None:
        return "None"
    if isinstance(thing, ARRAYS):
        return _with_article(f"{thing.dtype} array of shape {thing.shape}")
    return _with_article(type(thing).__name__)


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


def bytes_of(array: Any) -> memoryview:
    """The elements of an array in order, as bytes; copied only if they lie on another device or have gaps.

    Example:
        >>> bytes_of(jnp.array([1.0, -0.0])).hex()
        '0000803f00000080'
    """
    return flat_bytes(plain(array))


def flat_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """The same for a NumPy array without gaps."""
    return array.reshape(-1).view(np.uint8).data


def plain(array: Any) -> np.ndarray[Any, Any]:
    """The values as a NumPy array; for a random key, its data.

    Of an array that is sharded over several processes, these are the values that this process has, in one row.
    """
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.extended)
    data = jax.random.key_data(array) if is_key else array
    if is_spread(data):
        shards = {str(shard.index): shard.data for shard in data.addressable_shards}
        return np.concatenate([np.asarray(shard).reshape(-1) for shard in shards.values()])
    # Not np.ascontiguousarray, which turns a scalar into a vector.
    return np.asarray(data, order="C")


def is_spread(array: Any) -> bool:
    """Whether this process has only a part of an array, and others have the rest."""
    return isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated)
