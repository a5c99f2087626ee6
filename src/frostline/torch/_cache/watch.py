"""Checking that the part below the line has not changed since the features were computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, final

import torch
from torch import Tensor

from frostline._core.errors import StaleCacheError
from frostline.features.boundary import Boundary
from frostline.torch._freezing.held_modules import FOLLOWERS
from frostline.torch._tensors import addresses, versions

TensorStamp = tuple[bool, tuple[int, ...], tuple[int, ...]]
"""Whether a tensor requires a gradient, and the address and version counter of each of its parts."""


class CacheableLine(Protocol):
    """The interface of a line that a cache uses."""

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """The values that cross the line, for one sample."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """The parameters and buffers below, by their paths in the model."""

    def below(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        """Computes the values that cross the line."""

    def fingerprint(self) -> str:
        """Returns a digest of the part below the line."""


@final
class LineWatch:
    """Checks that the tensors below a line do not change.

    A check compares flags and version counters, which takes microseconds, and the bytes if a counter has moved. Writes
    through ``.data`` or numpy move no counter, so a check can be told to compare the bytes anyway. Freezing and thawing
    notify it, and it notifies the workers of a DataLoader, which have no model.

    Args:
        line: the line.
        name: the name of the cache in errors.

    Attributes:
        thawed: 1 after a tensor below was thawed, in memory that is shared with workers.
    """

    def __init__(self, line: CacheableLine, name: str) -> None:
        self._line, self.name = line, name
        self.fingerprint = line.fingerprint()
        self._stamps = _stamps(line.tensors)
        self.thawed = torch.zeros((), dtype=torch.int64).share_memory_()
        FOLLOWERS.add(self)

    def sync(self) -> None:
        """Notices a freeze or thaw."""
        self.thawed.fill_(any(tensor.requires_grad for tensor in self._line.tensors.values()))

    def check(self, *, bytes_too: bool = False) -> None:
        """Checks that nothing below has changed.

        Args:
            bytes_too: whether the bytes are compared even if no counter has moved.

        Raises:
            StaleCacheError: something has.
        """
        stamps = _stamps(self._line.tensors)
        if stamps == self._stamps and not self.thawed and not bytes_too:
            return
        self.sync()
        if self.thawed:
            trainable = tuple(path for path, stamp in stamps.items() if stamp[0])
            raise stale(self.name, f"{len(trainable)} of {len(stamps)} tensors", trainable)
        if (now := self._line.fingerprint()) != self.fingerprint:
            written = tuple(path for path in stamps if stamps[path] != self._stamps.get(path))
            what = f"{len(written)} of {len(stamps)} tensors below the line were written to since it was opened"
            if not written:
                what = "the part below the line was changed since it was opened, past the counters of its tensors"
            problem = f"is stale: {what}, and the fingerprint is {now} now, not {self.fingerprint}."
            fix = "Load the weights that it was made with, or make a new one: FeatureCache(another_folder, line)."
            raise StaleCacheError(self.name, problem, written, fix)
        self._stamps = stamps


def stale(name: str, what: str = "something", trainable: tuple[str, ...] = ()) -> StaleCacheError:
    """Returns the error for a thawed tensor."""
    problem = f"is stale: {what} below the line can be trained now."
    fix = "Freeze it again, or draw a new line and make a new cache for it: line = frostline(model, *example)."
    return StaleCacheError(name, problem, trainable, fix)


def _stamps(tensors: Mapping[str, Tensor]) -> dict[str, TensorStamp]:
    return {path: (tensor.requires_grad, addresses(tensor), versions(tensor)) for path, tensor in tensors.items()}
