"""Bitwise comparison of two checkpoints."""

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
    """One tensor that is not bitwise equal in A and B.

    Attributes:
        path: its dotted name.
        a: the tensor in A, or None.
        b: the tensor in B, or None.
        first: the index of the first different element, if dtype and shape are equal.
        frozen: whether it should not differ.
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
        """Returns the difference as data for JSON."""
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
        count: the number of names in A and B together.
        differences: the tensors that are not bitwise equal, in the order of A, then of B.
        patterns: the patterns of tensors that should not differ; empty if the user gave none.
    """

    count: int
    differences: tuple[FileDifference, ...]
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, a: Checkpoint, b: Checkpoint, patterns: Sequence[str] = ()) -> Comparison:
        """Compares two files; the memory holds at most a piece of one tensor of each.

        Raises:
            NoMatchError: a pattern matches nothing in either file.
        """
        tensors = {**b.tensors, **a.tensors}
        frozen = meant_to_stay(tensors.values(), patterns)
        found = (_difference(path, a, b, is_frozen=path in frozen) for path in dict.fromkeys([*a.tensors, *b.tensors]))
        return cls(len(tensors), tuple(each for each in found if each is not None), tuple(patterns))

    @property
    def frozen(self) -> tuple[FileDifference, ...]:
        """The differences in tensors that should not differ."""
        return tuple(each for each in self.differences if each.frozen)

    @property
    def is_fine(self) -> bool:
        """Whether no tensor of the patterns differs; without patterns, whether no tensor differs."""
        return not (self.frozen if self.patterns else self.differences)

    def to_dict(self) -> dict[str, object]:
        """Returns the comparison as data for JSON."""
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
    """Returns the tensors that `patterns` name, and the buffers of every module that they hold.

    Unlike in a model, a pattern can name a buffer itself.
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
    """Returns the index of the element that contains this byte; an element may be smaller than a byte."""
    rest = byte * 8 // (tensor.nbytes * 8 // tensor.size)
    index: list[int] = []
    for length in reversed(tensor.shape):
        rest, at = divmod(rest, length)
        index.insert(0, at)
    return tuple(index)
