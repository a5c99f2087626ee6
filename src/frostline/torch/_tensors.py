"""Tensors in nested values, their storages, their bytes and the names of their dtypes."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from frostline._core.errors import UnsupportedError
from frostline._core.errors.base import listed


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


def plain_parts(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yields the plain tensors in which this process keeps the values of a tensor, each with its name inside of it.

    A plain tensor is its only part, and has the name "". A sparse tensor has its indices and values, a quantised one
    its data and scales, and a distributed one its local shard. Whatever reads bytes, or asks where a tensor lies, asks
    these: the outermost tensor of such a class has neither bytes nor an address.

    Example:
        >>> from frostline.torch._tensors import plain_parts
        >>> [(name, list(part.shape)) for name, part in plain_parts(torch.eye(2).to_sparse())]
        [('indices', [2, 2]), ('values', [2])]
    """
    if is_traceable_wrapper_subclass(tensor):
        names = tensor.__tensor_flatten__()[0]
        found = [(name.lstrip("_"), inner) for name in names if isinstance(inner := getattr(tensor, name), Tensor)]
    elif tensor.layout is torch.strided:
        yield "", tensor
        return
    elif tensor.layout is torch.sparse_coo:
        found = [("indices", tensor._indices()), ("values", tensor._values())]
    elif tensor.layout in {torch.sparse_csr, torch.sparse_bsr, torch.sparse_csc, torch.sparse_bsc}:
        by_row = tensor.layout in {torch.sparse_csr, torch.sparse_bsr}
        names = ["crow_indices", "col_indices"] if by_row else ["ccol_indices", "row_indices"]
        found = [(name, getattr(tensor, name)()) for name in (*names, "values")]
    else:  # a layout of an accelerator's library, which shows nothing of its inside
        yield "", tensor
        return
    for name, inner in found:
        for below, part in plain_parts(inner):
            yield f"{name}.{below}" if below else name, part


def is_distributed(tensor: Tensor) -> bool:
    """Whether a tensor is a shard or copy of one that several processes have together (a DTensor)."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor with all its values in this process; all that have a shard of it must call it."""
    if not is_distributed(tensor):
        return tensor
    full: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
    return full


def addresses(tensor: Tensor) -> tuple[int, ...]:
    """Returns where the values of a tensor lie in this process."""
    if type(tensor) is Tensor or type(tensor) is torch.nn.Parameter:
        return (tensor.data_ptr(),)  # most are plain
    return tuple(part.data_ptr() for _, part in plain_parts(tensor))


def versions(tensor: Tensor) -> tuple[int, ...]:
    """Returns the versions of a tensor's parts; what was made in inference mode has none."""
    if type(tensor) is Tensor or type(tensor) is torch.nn.Parameter:
        return (0 if tensor.is_inference() else tensor._version,)
    return tuple(0 if part.is_inference() else part._version for _, part in plain_parts(tensor))


def storages(tensor: Tensor) -> Iterator[torch.UntypedStorage]:
    """Yields the storages behind a tensor: one, except for sparse tensors and those that wrap others."""
    for _, part in plain_parts(tensor):
        yield part.untyped_storage()


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
def bytes_of(part: Tensor) -> Iterator[memoryview]:
    """Yields the elements of a plain tensor in order, as bytes that are valid inside the context only.

    One on another device, or with gaps, is copied for as long as the context lasts.

    Raises:
        ValueError: it has no data that can be read: see `why_unreadable`.
    """
    if (why := why_unreadable(part)) is not None:
        raise ValueError(f"a tensor that {why}")
    plain = part.detach().resolve_conj().resolve_neg().cpu().contiguous()
    size = plain.numel() * plain.element_size()
    if size == 0:
        yield memoryview(b"")
        return
    yield memoryview((ctypes.c_ubyte * size).from_address(plain.data_ptr())).cast("B")


def pieces_of(tensor: Tensor) -> Iterator[bytes | memoryview]:
    """Yields the bytes of a tensor, each piece valid until the next one; before a part inside of it, what it is."""
    for name, part in plain_parts(tensor):
        if name:
            yield f"{name} {described(part)}\n".encode()
        with bytes_of(part) as data:
            yield data


def why_unreadable(tensor: Tensor) -> str | None:
    """Returns why the values of a tensor cannot be read in this process, as a part of a sentence; None if they can."""
    for _, part in plain_parts(tensor):
        if part.is_meta:
            return "is on the meta device, without data"
        if isinstance(part, FakeTensor):
            return "is a fake tensor, without data"
        if part.numel() and part.layout is not torch.strided:
            return f"has the layout {dtype_name(part.layout)}, whose bytes cannot be read"
        if part.numel() and not part.data_ptr():
            if type(part) in (Tensor, torch.nn.Parameter):
                return "has given its memory back"
            return f"is of the class {type(part).__name__}, which shows nothing of its inside"
    return None


def check_readable(expression: str, tensors: Mapping[str, Tensor], kind: str = "tensors") -> None:
    """Checks that the values of tensors can be read in this process.

    Args:
        expression: the call that reads them.
        tensors: path -> tensor.
        kind: what they are.

    Raises:
        UnsupportedError: some have no data, such as those on the meta device, where offloaded weights are, too.
    """
    found = {path: why for path, tensor in tensors.items() if (why := why_unreadable(tensor)) is not None}
    if found:
        lines = listed([f"{path} {why}" for path, why in found.items()], 5)
        raise UnsupportedError(
            expression,
            "\n".join([f"cannot read {len(found)} of {len(tensors)} {kind}:", *lines]),
            'Give them data first: model.to_empty(device="cpu"); or end their offloading: '
            "accelerate.hooks.remove_hook_from_submodules(model).",
        )


def is_differentiable(tensor: Tensor) -> bool:
    """Whether a tensor of this dtype can have a gradient."""
    return tensor.is_floating_point() or tensor.is_complex()


def dtype_name(dtype: torch.dtype | torch.layout) -> str:
    """Returns the name of a dtype or layout without its module.

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
