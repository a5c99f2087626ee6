"""Digests and copies that prove whether bytes moved, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

from xxhash import xxh3_128_digest

from frostline._core.errors.base import FrostlineError

CHUNK = 1 << 20
KEPT = 1 << 12


@dataclass(frozen=True)
class Mark:
    """A memory of some bytes: a digest for each stretch, and a copy where they are few.

    Attributes:
        nbytes: how many bytes there were.
        digests: the digest of each stretch of `CHUNK` bytes.
        kept: the bytes themselves, where they are few or a copy was asked for.
    """

    nbytes: int
    digests: tuple[bytes, ...]
    kept: bytes | None

    @classmethod
    def of(cls, data: memoryview, *, keep: bool = False) -> Mark:
        """The mark of some bytes, read in one pass and without a copy.

        Example:
            >>> Mark.of(memoryview(b"frozen")) == Mark.of(memoryview(b"frozen"))
            True
        """
        stretches = (data[i : i + CHUNK] for i in range(0, data.nbytes, CHUNK))
        kept = data.tobytes() if keep or data.nbytes <= KEPT else None
        return cls(data.nbytes, tuple(xxh3_128_digest(s) for s in stretches), kept)

    def same_as(self, other: Mark) -> bool:
        """Whether the bytes are the same."""
        return self.nbytes == other.nbytes and self.digests == other.digests


def changed_elements(before: bytes, now: memoryview, itemsize: int) -> list[int]:
    """The positions at which elements of `itemsize` bytes differ.

    Example:
        >>> changed_elements(b"abcd", memoryview(b"abXd"), itemsize=1)
        [2]
    """
    pairs = zip_longest(_elements(memoryview(before), itemsize), _elements(now, itemsize))
    return [i for i, (old, new) in enumerate(pairs) if old != new]


def _elements(data: memoryview, itemsize: int) -> Iterator[bytes]:
    return (bytes(data[i : i + itemsize]) for i in range(0, data.nbytes, itemsize))


def changed_stretch(before: Mark, now: Mark, itemsize: int) -> tuple[int, int]:
    """The first stretch of elements in which there is a difference, as ``(start, stop)``."""
    pairs = enumerate(zip_longest(before.digests, now.digests))
    first = next(i for i, (old, new) in pairs if old != new)
    stop = min((first + 1) * CHUNK, max(before.nbytes, now.nbytes))
    return first * CHUNK // itemsize, stop // itemsize


@dataclass(frozen=True)
class Movement:
    """One frozen tensor that moved.

    Attributes:
        path: its name in the model.
        kind: ``"parameter"`` or ``"buffer"``.
        difference: where the first difference is, with the numbers.
        cause: the likely cause.
        fix: what to do about it, as code.
    """

    path: str
    kind: str
    difference: str
    cause: str
    fix: str


class MovedError(FrostlineError, RuntimeError):
    """A frozen tensor that moved.

    Attributes:
        moved: a `Movement` for each parameter and buffer that moved.
        watched: how many were watched.
        place: the process that says so, where there are several: ``"On rank 1 of 4, "``.
    """

    moved: tuple[Movement, ...]
    watched: int
    place: str = ""

    def _lines(self) -> Iterable[str]:
        yield f"{self.place}{len(self.moved)} of {self.watched} frozen tensors moved."
        for movement in self.moved[:5]:
            yield f"{movement.path!r} ({movement.kind}) moved. {movement.difference}"
            yield f"  Likely cause: {movement.cause}."
            yield f"  {movement.fix}"
        if len(self.moved) > 5:
            yield f"... and {len(self.moved) - 5} more"
