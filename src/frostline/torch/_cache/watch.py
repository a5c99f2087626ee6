"""Whether what is below the line is still what the features were computed with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, final

import torch
from torch import Tensor

from frostline._core.errors import StaleCacheError
from frostline.features.boundary import Boundary
from frostline.torch._freezing.held_modules import FOLLOWERS

Stamp = tuple[bool, int, int]
"""Whether a tensor can be trained, where it is, and how often it was written to."""


class Below(Protocol):
    """The part of a line that a cache needs."""

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """What crosses the line, of one sample."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The parameters and buffers below, by their paths in the model."""

    def below(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        """What crosses the line."""

    def fingerprint(self) -> str:
        """Of all that is below."""


@final
class Watch:
    """Sees what happens to the tensors below a line.

    Flags and version counters are looked at, which takes microseconds; when a counter has moved the bytes are
    compared. No counter sees what is written through ``.data`` or numpy, so where much depends on it, they are
    compared anyway. Freezing and thawing is told to it, and it tells the workers of a DataLoader, which have no model.

    Args:
        line: what to look at.
        name: what the cache is called in an error.

    Attributes:
        thawed: 1 once something below trains, in memory that is shared with workers.
    """

    def __init__(self, line: Below, name: str) -> None:
        self._line, self.name = line, name
        self.fingerprint = line.fingerprint()
        self._stamps = _stamps(line.tensors)
        self.thawed = torch.zeros((), dtype=torch.int64).share_memory_()
        FOLLOWERS.add(self)

    def sync(self) -> None:
        """Something was frozen or thawed somewhere."""
        self.thawed.fill_(any(tensor.requires_grad for tensor in self._line.tensors.values()))

    def check(self, *, bytes_too: bool = False) -> None:
        """Sees that everything below is as it was.

        Args:
            bytes_too: whether the bytes are compared even if no counter has moved.

        Raises:
            StaleCacheError: something is not.
        """
        stamps = _stamps(self._line.tensors)
        if stamps == self._stamps and not self.thawed and not bytes_too:
            return
        self.sync()
        if self.thawed:
            trainable = tuple(path for path, stamp in stamps.items() if stamp[0])
            raise stale(self.name, f"{len(trainable)} of {len(stamps)} tensors", trainable)
        if (now := self._line.fingerprint()) != self.fingerprint:
            raise self._moved(stamps, now)
        self._stamps = stamps

    def _moved(self, stamps: Mapping[str, Stamp], now: str) -> StaleCacheError:
        written = tuple(path for path in stamps if stamps[path] != self._stamps.get(path))
        what = f"{len(written)} of {len(stamps)} tensors below the line were written to since it was opened"
        if not written:
            what = "what is below the line was changed since it was opened, past the counters of its tensors"
        problem = f"is stale: {what}, and the fingerprint is {now} now, not {self.fingerprint}."
        fix = "Load the weights that it was made with, or make a new one: FeatureCache(another_folder, line)."
        return StaleCacheError(self.name, problem, written, fix)


def stale(name: str, what: str = "something", trainable: tuple[str, ...] = ()) -> StaleCacheError:
    """The error for what was thawed."""
    problem = f"is stale: {what} below the line can be trained now."
    fix = "Freeze it again, or draw a new line and make a new cache for it: line = frostline(model, *example)."
    return StaleCacheError(name, problem, trainable, fix)


def _stamps(tensors: Mapping[str, Tensor]) -> dict[str, Stamp]:
    # A tensor that was made in inference mode counts no versions.
    return {
        path: (tensor.requires_grad, tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for path, tensor in tensors.items()
    }
