"""Arrays in a file: writing them and reading them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frostline._core.errors import DeltaError
from frostline.checkpoint.delta import TensorSource
from frostline.checkpoint.stored import StoredTensor
from frostline.jax._arrays import bytes_of, is_spread

# JAX arrays made from Python numbers have a weak dtype.
_NUMBERS = {"f": 0.0, "i": 0, "c": 0j}


def source(array: Any) -> TensorSource:
    """An array to save; for a random key, its data.

    All processes that have a part of the array must call it, and then have all of it.

    Example:
        >>> source(jnp.ones((2, 3), jnp.bfloat16)).nbytes
        12
    """
    data = _data(array)
    weak = bool(getattr(array, "weak_type", False))
    if is_spread(data):
        from jax.experimental.multihost_utils import process_allgather

        data = process_allgather(data, tiled=True)
    return TensorSource(
        str(data.dtype), tuple(data.shape), _nbytes(data), lambda: nullcontext(bytes_of(data)), weak=weak
    )


def stored(path: str, array: Any) -> StoredTensor:
    """The entry that a file must have for an array."""
    data = _data(array)
    return StoredTensor(path, tuple(data.shape), str(data.dtype), _nbytes(data))


def like(leaf: Any, found: StoredTensor, data: bytearray, *, weak: bool) -> Any:
    """The array in a file, of the same kind and on the same devices as a leaf.

    Args:
        leaf: the present array, of the same shape and dtype.
        found: the entry in the file.
        data: its bytes.
        weak: whether its dtype is weak.

    Raises:
        DeltaError: JAX cannot make arrays of this dtype now.
    """
    numbers = np.ndarray(found.shape, _data(leaf).dtype, data)
    if isinstance(leaf, np.ndarray):
        return numbers
    if isinstance(leaf, np.generic):
        return numbers[()]
    array = _keyed(leaf, _array(found, numbers, weak=weak))
    # Uncommitted arrays stay uncommitted.
    return jax.device_put(array, leaf.sharding) if leaf.committed else array


def free(found: StoredTensor, data: bytearray, *, weak: bool) -> Any:
    """The array in a file, with the dtype of the file, on the default device.

    Raises:
        ValueError: there is no such dtype, or the number of bytes is wrong.
        DeltaError: JAX cannot make arrays of this dtype now.
    """
    try:
        dtype = jnp.dtype(found.dtype)
    except TypeError:
        raise ValueError(f"{found.path!a} is of the unknown dtype {found.dtype!a}") from None
    if dtype.hasobject or found.nbytes != found.size * dtype.itemsize:
        raise ValueError(f"{found.path!a} has too many or too few bytes for {found.dtype!a} of shape {found.shape}")
    try:
        numbers = np.ndarray(found.shape, dtype, data)
    except OverflowError as error:
        raise ValueError(f"{found.path!a} has an impossible shape") from error
    return _array(found, numbers, weak=weak)


def has_values(array: Any) -> bool:
    """Whether an array has bytes; a shape without data, or an array of Python objects, has none."""
    return not isinstance(array, jax.ShapeDtypeStruct) and not (isinstance(array, np.ndarray) and array.dtype.hasobject)


def is_key(array: Any) -> bool:
    """Whether an array holds random keys."""
    return bool(jnp.issubdtype(array.dtype, jax.dtypes.extended))


def _data(array: Any) -> Any:
    return jax.random.key_data(array) if is_key(array) else array


def _nbytes(data: Any) -> int:
    return int(data.size) * int(data.dtype.itemsize)


def _array(found: StoredTensor, numbers: np.ndarray[Any, Any], *, weak: bool) -> jax.Array:
    array = jax.device_put(numbers)
    if array.dtype != numbers.dtype:
        problem = f"cannot make {found.path!r} of {found.dtype}: JAX makes it {array.dtype}."
        fix = 'Have JAX make arrays of 64 bits: jax.config.update("jax_enable_x64", True).'
        raise DeltaError("load_delta(file, tree)", problem, (), fix)
    return _weak(array) if weak else array


def _weak(array: jax.Array) -> jax.Array:
    """The same bits with a weak dtype, if JAX has a weak form of it."""
    number = _NUMBERS.get(array.dtype.kind)
    room = array if number is None else jnp.full(array.shape, number)
    return room.at[...].set(array) if room.dtype == array.dtype else array


def _keyed(leaf: Any, data: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if is_key(leaf) else data
