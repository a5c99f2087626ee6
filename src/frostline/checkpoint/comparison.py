"""The tensors in which two checkpoints differ, compared bitwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.selecting.resolve import resolve
from frostline.checkpoint.inventory import Guess
from frostline.checkpoint.stored import CHUNK, Checkpoint, StoredTensor


@final
@dataclass(frozen=True, slots=True)
class FileDifference:
    """One tensor that is not bitwise the same in A and in B.

    Attributes:
        path: its dotted name.
        a: what A holds under that name.
        b: what B holds under it.
        first: the index of the first element that differs, where only values do.
        frozen: whether it was meant to stay.
    """

    path: str
    a: StoredTensor | None
    b: StoredTensor | None
    first: tuple[int, ...] | None
    frozen: bool

    @property
    def kind(self) -> str:
        """One of "only in A", "only in B", "dtype", "shape" and "values"."""
        if self.a is None or self.b is None:
            return "only in B" if self.a is None else "only in A"
        if self.a.dtype != self.b.dtype:
            return "dtype"
        return "shape" if self.a.shape != self.b.shape else "values"

    def __str__(self) -> str:
        if self.kind == "values":
            return f"{self.a}, first at {list(self.first or ())}"
        return " -> ".join(str(side) for side in (self.a, self.b) if side is not None)

    def to_dict(self) -> dict[str, object]:
        """What differs, for JSON."""
        return {
            "path": self.path,
            "kind": self.kind,
            "frozen": self.frozen,
            "a": self.a and self.a.to_dict(),
            "b": self.b and self.b.to_dict(),
            "first": self.first and list(self.first),
        }


@final
@dataclass(frozen=True)
class Comparison:
    """How two checkpoints differ.

    Attributes:
        count: how many names there are in A and B together.
        differences: those that are not bitwise the same, in the order of A, then of B.
        patterns: what was meant to stay; nothing in particular if empty.
    """

    count: int
    differences: tuple[FileDifference, ...]
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, a: Checkpoint, b: Checkpoint, patterns: Sequence[str] = ()) -> Comparison:
        """Compares two files, with no more than a piece of one tensor in memory at a time.

        Raises:
            NoMatchError: a pattern matches nothing in either file.
        """
        tensors = {**b.tensors, **a.tensors}
        frozen = meant_to_stay(tensors.values(), patterns)
        found = (_difference(path, a, b, is_frozen=path in frozen) for path in dict.fromkeys([*a.tensors, *b.tensors]))
        return cls(len(tensors), tuple(each for each in found if each is not None), tuple(patterns))

    @property
    def frozen(self) -> tuple[FileDifference, ...]:
        """The differences that should not be."""
        return tuple(each for each in self.differences if each.frozen)

    @property
    def is_fine(self) -> bool:
        """Whether nothing differs that was meant to stay; without patterns everything was."""
        return not (self.frozen if self.patterns else self.differences)

    def to_dict(self) -> dict[str, object]:
        """All of it, for JSON."""
        return {
            "tensors": self.count,
            "different": len(self.differences),
            "frozen_different": len(self.frozen),
            "frozen_patterns": list(self.patterns),
            "differences": [each.to_dict() for each in self.differences],
        }

    def __str__(self) -> str:
        head = f"{len(self.differences)} of {self.count} tensors differ"
        if self.patterns and self.differences:
            head += f", {len(self.frozen) or 'none'} of them frozen"
        # Aligned by hand: rich takes seconds for the tensors of a large model.
        rows = []
        for each in self.differences:
            state = ["frozen" if each.frozen else "trainable"] if self.patterns else []
            rows.append([*state, each.path, each.kind, str(each)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join([f"{head}.", *lines])


def meant_to_stay(tensors: Iterable[StoredTensor], patterns: Sequence[str]) -> frozenset[str]:
    """The tensors that `patterns` name, and the buffers of every module that they freeze whole.

    Unlike in a model, a buffer can be named by itself: a file holds what it held.
    """
    if not patterns:
        return frozenset()
    tensors = list(tensors)
    everything = Inventory(tuple(Param(tensor.path, tensor.shape, tensor.dtype, 1) for tensor in tensors))
    named = resolve(patterns, everything)
    return named | Guess.of(tensors).held_buffers(named)


def _difference(path: str, a: Checkpoint, b: Checkpoint, *, is_frozen: bool) -> FileDifference | None:
    left, right = a.tensors.get(path), b.tensors.get(path)
    first = None
    if left is not None and right is not None and (left.dtype, left.shape) == (right.dtype, right.shape):
        at = _first_byte(a, b, path)
        if at is None:
            return None
        first = _index(left, at)
    return FileDifference(path, left, right, first, is_frozen)


def _first_byte(a: Checkpoint, b: Checkpoint, path: str) -> int | None:
    for i, (left, right) in enumerate(zip(a.chunks(path), b.chunks(path), strict=True)):
        if left != right:
            return i * CHUNK + _first_within(left, right)
    return None


def _first_within(left: bytes, right: bytes) -> int:
    low, high = 0, len(left)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if left[low:middle] != right[low:middle] else (middle, high)
    return low


def _index(tensor: StoredTensor, byte: int) -> tuple[int, ...]:
    """The index of the element that holds this byte; an element may be less than a byte."""
    rest = byte * 8 // (tensor.nbytes * 8 // tensor.size)
    index: list[int] = []
    for length in reversed(tensor.shape):
        rest, at = divmod(rest, length)
        index.insert(0, at)
    return tuple(index)
