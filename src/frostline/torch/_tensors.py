"""Tensors in nested values, their storages, their bytes and the names of their dtypes."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def tensors(value: Any) -> Iterator[Tensor]:
    """Yields every tensor in a value: in tuples, lists, mappings, dataclasses and registered pytrees.

    Example:
        >>> from frostline.torch._tensors import tensors
        >>> [t.item() for t in tensors({"a": torch.tensor(1), "b": [torch.tensor(2), None]})]
        [1, 2]
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        yield from tensors(tuple(value.values()))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from tensors(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))
    elif type(value) in pytree.SUPPORTED_NODES:
        yield from tensors(tuple(pytree.tree_leaves(value)))


def storages(tensor: Tensor) -> Iterator[torch.UntypedStorage]:
    """Yields the storages behind a tensor: one, except for sparse tensors and those that wrap others."""
    if is_traceable_wrapper_subclass(tensor):
        for name in tensor.__tensor_flatten__()[0]:
            yield from storages(getattr(tensor, name))
    elif tensor.layout is torch.strided:
        yield tensor.untyped_storage()
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor._indices().untyped_storage(), tensor._values().untyped_storage())
    else:
        parts = ("crow_indices", "col_indices", "ccol_indices", "row_indices", "values")
        names = parts[:2] + parts[4:] if tensor.layout in {torch.sparse_csr, torch.sparse_bsr} else parts[2:]
        yield from (getattr(tensor, name)().untyped_storage() for name in names)


def storage_identity(storage: torch.UntypedStorage) -> int:
    """Returns a number that differs for any two storages while both live; fake tensors have no address, but this."""
    return storage._cdata


def distinct_bytes(tensors: Iterable[Tensor], without: Iterable[int] = ()) -> int:
    """Returns the bytes of the distinct storages behind tensors, each counted once.

    Args:
        tensors: a view counts as much as its base, because it keeps all of it alive.
        without: identities of storages that do not count.
    """
    found = {storage_identity(storage): storage.nbytes() for tensor in tensors for storage in storages(tensor)}
    return sum(found[key] for key in found.keys() - set(without))


@contextmanager
def bytes_of(tensor: Tensor) -> Iterator[memoryview]:
    """Yields the tensor's elements in order, as bytes that are valid inside the context only.

    A tensor on another device, or one with gaps, is copied for as long as the context lasts. A
    tensor without data (on the meta device) has no bytes.
    """
    if tensor.is_meta:
        yield memoryview(b"")
        return
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    size = plain.numel() * plain.element_size()
    if size == 0:
        yield memoryview(b"")
        return
    yield memoryview((ctypes.c_ubyte * size).from_address(plain.data_ptr())).cast("B")


def is_differentiable(tensor: Tensor) -> bool:
    """Whether a tensor of this dtype can have a gradient."""
    return tensor.is_floating_point() or tensor.is_complex()


def dtype_name(dtype: torch.dtype) -> str:
    """Returns the name of a dtype without its module.

    Example:
        >>> from frostline.torch._tensors import dtype_name
        >>> dtype_name(torch.float32)
        'float32'
    """
    return str(dtype).removeprefix("torch.")


def described(value: Any) -> str:
    """Returns the text of a value, in which a tensor is its dtype and shape.

    Example:
        >>> from frostline.torch._tensors import described
        >>> described(torch.ones(2, 3)), described("mean")
        ('float32[2, 3]', "'mean'")
    """
    if isinstance(value, Tensor):
        return f"{dtype_name(value.dtype)}[{', '.join(map(str, value.shape))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {described(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(described, value))})"
    return repr(value)
