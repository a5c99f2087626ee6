"""The bytes of a tensor, without a copy where it lies in plain memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def bytes_of(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The tensor's elements in order, as bytes; valid inside the context only.

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
