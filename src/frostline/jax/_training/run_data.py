"""The arrays of a run on disk, written and read by Orbax in one process or in many."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from frostline._core.errors import UnsupportedError
from frostline.jax._training.stored import is_key

Sizes = Mapping[str, tuple[tuple[int, ...], str]]

_NAME = re.compile(r"data-(\d+)")


def orbax(expression: str) -> Any:
    """Returns Orbax, which is imported only here: it takes seconds.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import orbax.checkpoint
    except ImportError as error:
        problem = "writes and reads arrays by Orbax, which is not installed."
        raise UnsupportedError(expression, problem, "Install it: pip install orbax-checkpoint.") from error
    return orbax.checkpoint


def folder_after(place: Path) -> str:
    """Returns the name of a folder that is not there yet, the same one in each process, and makes the one above it."""
    place.mkdir(parents=True, exist_ok=True)
    numbers = [int(found[1]) for each in place.iterdir() if (found := _NAME.fullmatch(each.name))]
    number = max(numbers, default=0) + 1
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import broadcast_one_to_all

        number = int(broadcast_one_to_all(np.int32(number)))
    return f"data-{number}"


def remove_others(place: Path, name: str) -> None:
    """Removes the arrays of earlier runs, and what a crash has left."""
    for each in list(place.iterdir()):
        if each.name.startswith("data-") and each.name != name:
            shutil.rmtree(each, ignore_errors=True)


def write_arrays(folder: Path, arrays: Mapping[str, Any], ocp: Any) -> None:
    """Writes arrays by name. Orbax cannot write those without elements, so they are left out."""
    data = {name: _local(_data(array)) for name, array in arrays.items() if array.size}
    _checkpointer(ocp).save(folder.absolute(), args=ocp.args.PyTreeSave(data))


def sizes_of(arrays: Mapping[str, Any]) -> Sizes:
    """The shape and dtype of each array; of random keys, those of their data."""
    shapes = {name: _abstract(array) for name, array in arrays.items()}
    return {name: (tuple(each.shape), str(each.dtype)) for name, each in shapes.items()}


def read_arrays(folder: Path, like: Mapping[str, Any], sizes: Sizes, ocp: Any) -> dict[str, Any]:
    """Reads arrays by name.

    Args:
        folder: the folder.
        like: for a name the array in whose place it comes, if there is one: the result is on the same devices, sharded
            in the same way. Every other array is one of NumPy.
        sizes: the shape and dtype of each array.
        ocp: Orbax.
    """
    wanted = {name: size for name, size in sizes.items() if 0 not in size[0]}
    arguments = {name: _restored(ocp, like.get(name), *size) for name, size in wanted.items()}
    item = dict.fromkeys(wanted, 0)
    found: dict[str, Any] = _checkpointer(ocp).restore(
        folder.absolute(), args=ocp.args.PyTreeRestore(item=item, restore_args=arguments)
    )
    for name, (shape, dtype) in sizes.items():
        array = found.get(name, np.zeros(shape, jnp.dtype(dtype)))
        found[name] = _as(like[name], array) if name in like else array
    return found


def _checkpointer(ocp: Any) -> Any:
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())


def _restored(ocp: Any, leaf: Any, shape: tuple[int, ...], dtype: str) -> Any:
    if not _is_placed(leaf) or is_key(leaf):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=shape, dtype=jnp.dtype(dtype))


def _as(leaf: Any, array: Any) -> Any:
    """The array as what it replaces: of NumPy, on one device and free to go to others, or where that one is."""
    if is_key(leaf):
        array = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
        return jax.device_put(array, leaf.sharding) if _is_placed(leaf) else array
    if isinstance(leaf, np.ndarray | np.generic) or isinstance(array, jax.Array):
        return array
    return jax.device_put(array, leaf.sharding) if _is_placed(leaf) else jnp.asarray(array)


def _is_placed(leaf: Any) -> bool:
    """Whether an array is meant to be where it is; JAX may move any other one."""
    return bool(getattr(leaf, "committed", getattr(leaf, "sharding", None) is not None))


def _data(array: Any) -> Any:
    return jax.random.key_data(array) if is_key(array) else array


def _abstract(array: Any) -> Any:
    return jax.eval_shape(jax.random.key_data, array) if is_key(array) else array


def _local(array: Any) -> Any:
    # Among several processes, an array that is whole in each is written once, as a value.
    is_whole = isinstance(array, jax.Array) and jax.process_count() > 1 and array.is_fully_addressable
    return np.asarray(array) if is_whole else array
