"""Integers keep their values in a fake run, because models look at them: masks, lengths, positions.

In a fake copy floating tensors have no data, but integers and bools of the example have theirs. So a model whose
control flow depends on them, for example on whether a mask hides anything, runs as it does in training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    unset_fake_temporarily,
)
from torch.utils._pytree import tree_map_only

from frostline.torch._tensors import tensors

_MOST = 1 << 24
"""Larger tensors have no data either, to save memory."""


def is_exact(value: torch.Tensor) -> bool:
    """Whether a tensor has values with which a fake copy computes."""
    return not isinstance(value, FakeTensor) and may_be_exact(value)


def may_be_exact(value: torch.Tensor) -> bool:
    """Whether a tensor of this kind can have values."""
    is_number = value.is_floating_point() or value.is_complex()
    return not is_number and value.device.type != "meta" and value.numel() <= _MOST


def run(
    kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any], is_own: Callable[[torch.Tensor], bool] = lambda _: True
) -> Any:
    """Runs a kernel on integers if possible, and without data otherwise.

    Args:
        kernel: an operator, as a dispatch mode sees it.
        args: its positional arguments.
        kwargs: its keyword arguments.
        is_own: whether a tensor belongs to the fake copy or was made while it ran; no other tensor is written to.
    """
    if kernel in _MIXED and all(map(is_exact, tensors(args[1]))):
        return _MIXED[kernel](kernel, args)
    if kernel in _BLANK and args[0].dtype is not torch.bfloat16:
        return _BLANK[kernel](args, kwargs)
    is_random = torch.Tag.nondeterministic_seeded in kernel.tags  # it would move a generator
    if is_random or not all(map(is_exact, tensors((args, kwargs)))):
        return kernel(*args, **kwargs)
    if kernel._schema.is_mutable:
        return _write(kernel, args, kwargs, is_own)
    try:
        made = kernel(*args, **kwargs)
    except (DataDependentOutputException, DynamicOutputShapeException):
        if not any(True for _ in tensors((args, kwargs))):
            raise
    else:
        if not all(map(may_be_exact, tensors(made))):
            return made
    with unset_fake_temporarily():
        return kernel(*args, **kwargs)


def _write(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any], is_own: Callable[[torch.Tensor], bool]) -> Any:
    """Writes into integers once. A tensor that is not ours, such as a counter beside the model, is copied first."""
    with unset_fake_temporarily():
        copies = {id(each): each.clone() for each in tensors((args, kwargs)) if not is_own(each)}
        args, kwargs = tree_map_only(torch.Tensor, lambda each: copies.get(id(each), each), (args, kwargs))
        return kernel(*args, **kwargs)


def _index(kernel: Any, args: tuple[Any, ...]) -> Any:
    """Selects by a mask: the number of true positions gives the shape of the result."""
    places: list[torch.Tensor | None] = []
    with unset_fake_temporarily():
        for index in args[1]:
            is_mask = index is not None and index.dtype in {torch.bool, torch.uint8}
            places.extend(index.nonzero().unbind(1) if is_mask else [index])
    return kernel(args[0], places)


def _pack(kernel: Any, args: tuple[Any, ...]) -> Any:
    """Packs a sequence: its lengths give the number of rows."""
    data, lengths, batch_first = args
    with unset_fake_temporarily():
        rows, sizes = kernel(torch.empty(*data.shape[:2], 1), lengths, batch_first)
    return data.new_empty(rows.shape[0], *data.shape[2:]), sizes


def _grouped(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """A grouped product, for which PyTorch has a fake kernel in bfloat16 only."""
    left, right = args[:2]
    shape = [left.shape[-2], right.shape[-1]]
    if left.dim() == right.dim():
        ends = args[2] if len(args) > 2 else kwargs.get("offs")
        shape.insert(0, len(left) if ends is None else len(ends))
    return torch.empty(shape, dtype=left.dtype, device=left.device)


_BLANK = {getattr(torch.ops.aten, name).default: _grouped for name in ("_grouped_mm",) if hasattr(torch.ops.aten, name)}
_MIXED = {torch.ops.aten.index.Tensor: _index, torch.ops.aten._pack_padded_sequence.default: _pack}
