"""Digests of bytes: whether a model is bitwise the one it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import final

from xxhash import xxh3_128

from frostline._core import document
from frostline._core.errors import FileFormatError

Bytes = bytes | bytearray | memoryview


def digest(buffers: Iterable[Bytes]) -> str:
    """The XXH3 digest (128 bits, hexadecimal) of buffers one after another; no byte is copied.

    It finds accidents, not forgeries: it is not a cryptographic hash.

    Example:
        >>> digest([b"frost", b"line"]) == digest([b"frostline"])
        True
        >>> digest([b"frostline"])
        'd3213343e8af8dc8a325f44f47b8d17f'
    """
    hasher = xxh3_128()
    for buffer in buffers:
        hasher.update(buffer)
    return hasher.hexdigest()


def fingerprint(entries: Iterable[tuple[str, str, Sequence[int], Bytes]]) -> Fingerprint:
    """The fingerprint of named arrays; their order does not matter.

    Args:
        entries: path, dtype, shape and bytes of each array. They are taken one at a time.

    Returns:
        A digest for each path. Dtype and shape are part of it: the same bytes in another shape are another array.

    Raises:
        FileFormatError: a path comes twice.

    Example:
        >>> before = fingerprint([("a", "uint8", (2,), b"xy"), ("b", "uint8", (1,), b"z")])
        >>> before.diff(fingerprint([("b", "uint8", (1,), b"z"), ("a", "uint8", (2,), b"x!")]))
        TensorDifference(differ=('a',), missing=(), extra=())
    """
    return Fingerprint(tuple((path, digest_of(dtype, shape, (data,))) for path, dtype, shape, data in entries))


def digest_of(dtype: str, shape: Sequence[int], buffers: Iterable[Bytes]) -> str:
    """The digest of one array, as a fingerprint has it, from its bytes in pieces.

    Example:
        >>> digest_of("uint8", (2,), [b"x", b"y"]) == fingerprint([("a", "uint8", (2,), b"xy")]).digests["a"]
        True
    """
    return digest(chain((f"{dtype}[{','.join(map(str, shape))}]\n".encode(),), buffers))


@final
@dataclass(frozen=True)
class Fingerprint:
    """A digest for each path.

    Attributes:
        entries: paths with their digests; kept in the order of the paths.

    Raises:
        FileFormatError: a path comes twice.
    """

    entries: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(sorted(self.entries)))
        if len(self.digests) != len(self.entries):
            raise FileFormatError("fingerprint", "a path comes twice", "Give each path once.")

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digest of each path."""
        return dict(self.entries)

    @cached_property
    def total(self) -> str:
        """One digest of all."""
        # The length keeps a path with a newline in it from looking like two entries.
        lines = (f"{len(path)} {path} {value}\n" for path, value in self.entries)
        return digest(line.encode("utf-8", "surrogatepass") for line in lines)

    def diff(self, other: Fingerprint) -> TensorDifference:
        """The paths at which `other` differs, those that it lacks, and those that only it has."""
        mine, theirs = self.digests, other.digests
        return TensorDifference(
            differ=tuple(path for path in mine if path in theirs and mine[path] != theirs[path]),
            missing=tuple(path for path in mine if path not in theirs),
            extra=tuple(path for path in theirs if path not in mine),
        )

    def to_json(self) -> str:
        """The fingerprint as text: equal fingerprints give equal bytes."""
        return document.write("fingerprint", {"digests": self.digests, "total": self.total})

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """The fingerprint from the text of `to_json`.

        Raises:
            FileFormatError: the text is not a fingerprint, or its total is not the one of its digests.
        """
        try:
            found = document.fields(document.parse(text), "fingerprint", ("digests", "total"))
            digests = found["digests"]
            if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
                raise ValueError("its digests are not texts by path")
            read = cls(tuple(digests.items()))
            if read.total != found["total"]:
                raise ValueError(f"its total is {found['total']!r}, but its digests give {read.total!r}")
        except ValueError as error:
            fix = "Write it with fingerprint.to_json()."
            raise FileFormatError("fingerprint", str(error), fix) from error
        return read


@final
@dataclass(frozen=True, slots=True)
class TensorDifference:
    """How two fingerprints differ; true if they do.

    Attributes:
        differ: paths that both have, with other bytes, another dtype or another shape.
        missing: paths that only the first has.
        extra: paths that only the second has.
    """

    differ: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.differ or self.missing or self.extra)
