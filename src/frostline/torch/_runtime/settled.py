"""What was settled on, for as long as the weights below the line are what they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from frostline.features.boundary import Boundary
from frostline.torch._runtime.candidates import Run, made
from frostline.torch._runtime.contest import Entry, quiet
from frostline.torch._runtime.record import PLAIN, RuntimeRecord


class Source(Protocol):
    """What knows what is below a line."""

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """What crosses the line."""

    def below(self, leaves: Sequence[Any]) -> list[Tensor]:
        """The boundary of samples, as PyTorch computes it."""

    def module(self, leaves: Sequence[Any]) -> nn.Module | None:
        """What computes it for such leaves, with the tensors that the model has now; None if that is not known."""

    def tensors(self, side: int) -> Mapping[str, Tensor]:
        """The tensors that the model has now, below (0) or above (1) the line, by name."""


@final
class Stamp:
    """Which tensors there were, and how often each had been written to.

    Args:
        tensors: they are kept, so that no other one can come to lie where they were.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = list(tensors)
        self._places = [(t.data_ptr(), 0 if t.is_inference() else t._version) for t in self._tensors]

    def same(self, other: Stamp) -> bool:
        """Whether nothing was replaced and nothing written to in between."""
        mine, theirs = self._tensors, other._tensors
        return self._places == other._places and all(a is b for a, b in zip(mine, theirs, strict=True))


@final
class Settled:
    """A runtime that was picked.

    Args:
        source: what is below.
        stamp: of the tensors that it was picked for.
        record: how it was picked.
        entry: what was picked, which ran already.
        leaves: the batch that it ran on.
        want: the boundary of it as PyTorch computes it, for types and layouts.
    """

    def __init__(
        self,
        source: Source,
        stamp: Stamp,
        record: RuntimeRecord,
        entry: Entry,
        leaves: Sequence[Any] = (),
        want: Sequence[Tensor] = (),
    ) -> None:
        self.stamp, self.record = stamp, record
        self._source, self._memo = source, entry.memo
        self._forms = [(value.dtype, _layout(value)) for value in want]
        self._runs: dict[Any, Run | None] = {_shapes(leaves): entry.run}

    def run(self, leaves: Sequence[Any]) -> list[Tensor]:
        """The boundary of samples, of the types and layouts that it has otherwise."""
        if self.record.picked == PLAIN:
            return self._source.below(leaves)
        values = self._for(leaves)(*leaves)
        pairs = zip(values, self._forms, strict=True)
        return [value.to(dtype, memory_format=layout) for value, (dtype, layout) in pairs]

    def _for(self, leaves: Sequence[Any]) -> Run:
        """A graph is for one number of samples; for another there is another one, over the same weights."""
        shapes = _shapes(leaves)
        run = self._runs.get(shapes)
        if run is None:
            module = self._source.module(leaves)
            assert module is not None
            with quiet():
                run = self._runs[shapes] = made(self.record.picked.split("+"), module, self._memo)
                run(*leaves)  # what compiles does so at its first call
        return run


def _shapes(leaves: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((leaf.shape, leaf.device) if isinstance(leaf, Tensor) else leaf for leaf in leaves)


def _layout(value: Tensor) -> torch.memory_format:
    last = torch.channels_last
    if value.dim() == 4 and not value.is_contiguous() and value.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format
