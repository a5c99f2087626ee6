"""Integers are computed: what a model looks at while it runs (masks, lengths, positions) follows from them.

Floating numbers have no data in a shadow, integers and truths of the example have theirs. A model whose way depends on
them, as on whether a mask hides anything, then goes the way that it goes in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    unset_fake_temporarily,
)

_MOST = 1 << 24
"""Larger ones have no data either, for the sake of memory."""


def is_exact(value: torch.Tensor) -> bool:
    """Whether a tensor has numbers in it that a shadow computes with."""
    return not isinstance(value, FakeTensor) and may_be_exact(value)


def may_be_exact(value: torch.Tensor) -> bool:
    """Whether a tensor of this kind can have."""
    is_number = value.is_floating_point() or value.is_complex()
    return not is_number and value.device.type != "meta" and value.numel() <= _MOST


def run(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs a kernel on integers where it can, and without data elsewhere.

    Args:
        kernel: an operator, as a dispatch mode sees it.
        args: its positional arguments.
        kwargs: its other ones.
    """
    if kernel in _MIXED and all(map(is_exact, tensors(args[1]))):
        return _MIXED[kernel](kernel, args)
    is_random = torch.Tag.nondeterministic_seeded in kernel.tags  # it would move a generator
    if is_random or not all(map(is_exact, tensors((args, kwargs)))):
        return kernel(*args, **kwargs)
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


def _index(kernel: Any, args: tuple[Any, ...]) -> Any:
    """What a mask selects, by the positions where it is true: how many there are is the shape of the result."""
    places: list[torch.Tensor | None] = []
    with unset_fake_temporarily():
        for index in args[1]:
            is_mask = index is not None and index.dtype in {torch.bool, torch.uint8}
            places.extend(index.nonzero().unbind(1) if is_mask else [index])
    return kernel(args[0], places)


def _pack(kernel: Any, args: tuple[Any, ...]) -> Any:
    """A packed sequence: its lengths say how many rows it has, and nothing else of it is looked at."""
    data, lengths, batch_first = args
    with unset_fake_temporarily():
        rows, sizes = kernel(torch.empty(*data.shape[:2], 1), lengths, batch_first)
    return data.new_empty(rows.shape[0], *data.shape[2:]), sizes


_MIXED = {torch.ops.aten.index.Tensor: _index, torch.ops.aten._pack_padded_sequence.default: _pack}


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors among the arguments of a kernel, or in what it returns."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors(each)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
