"""Bytes: what a step saves for backward, and what it takes at its peak. Both are counted, not sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile


def saved_bytes(model: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes of the distinct storages that a forward pass saves, those of the model's own tensors left out."""
    own = [*model.parameters(), *model.buffers()]
    known = {_start(t) for t in own}
    kept: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address comes twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if _start(tensor) not in known:
            kept[_start(tensor)] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in kept.values())


def _start(tensor: torch.Tensor) -> int:
    # Of its storage. storage.data_ptr() would make a lazy copy a real one.
    return torch._C._data_address(tensor)


@dataclass
class Ledger:
    """What PyTorch's allocator gave out in a stretch of code.

    Attributes:
        peak: the most bytes that were held at a time, beyond those held before.
        held: the bytes that are still held at the end.
    """

    peak: int = 0
    held: int = 0


@contextmanager
def allocations() -> Iterator[Ledger]:
    """Counts every allocation of the CPU allocator, by the profiler's events."""
    ledger = Ledger()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        yield ledger
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        ledger.held += event.nbytes()
        ledger.peak = max(ledger.peak, ledger.held)


def peak_of(run: Callable[[], object]) -> int:
    """The most bytes held at a time while `run` runs."""
    with allocations() as ledger:
        run()
    return ledger.peak
