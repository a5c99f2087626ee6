"""Stored tensors: their names, shapes and dtypes; their bytes are read on request, a piece at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import final

from frostline._core.errors import FileFormatError

CHUNK = 1 << 20
MOST_KEYS = 100
MOST_CHARACTERS = 1000


@final
@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        path: its dotted name.
        shape: its shape.
        dtype: "float32", "bfloat16", "int64", ...
        nbytes: its size in bytes.
        storage: a value that is equal for two names of one tensor; None if the file does not record this.

    Example:
        >>> weight = StoredTensor("head.weight", (10, 4), "float32", 160)
        >>> weight.size, str(weight)
        (40, 'float32[10, 4]')
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    storage: Hashable = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    def to_dict(self) -> dict[str, object]:
        """Returns its dtype and shape as data for JSON."""
        return {"dtype": self.dtype, "shape": list(self.shape)}


class Checkpoint(ABC):
    """A file of named tensors.

    Attributes:
        file: its path.
        tensors: its tensors, by path.
        metadata: the strings beside them, by key.
    """

    def __init__(self, file: Path, tensors: Iterable[StoredTensor], metadata: Mapping[str, str] | None = None) -> None:
        self.file = file
        self.metadata = dict(metadata or {})
        self.tensors = {tensor.path: tensor for tensor in tensors}
        for path in self.tensors:
            if problem := unfit(path):
                fix = "Write the file again from its model."
                raise FileFormatError(str(file), f"the tensor name {shown(path)} {problem}", fix)

    @abstractmethod
    def chunks(self, path: str) -> Iterator[bytes]:
        """Yields the bytes of one tensor in row-major order, `CHUNK` at a time."""


def begins(file: Path) -> str:
    """Describes a file that is not a checkpoint by its size and its first bytes."""
    with file.open("rb") as stream:
        return f"It has {file.stat().st_size} bytes and begins with {stream.read(12)!r}"


def unfit(path: str) -> str:
    """Returns why the name of a tensor is not valid, or an empty string."""
    # Names are printed in a terminal and used in patterns; a hostile file may contain any name.
    if not path:
        return "is empty"
    if not path.isprintable():
        return "has unprintable characters"
    if "" in path.split("."):
        return "has an empty part"
    if len(path) > MOST_CHARACTERS or path.count(".") >= MOST_KEYS:
        return f"has {len(path)} characters and {path.count('.') + 1} parts"
    return ""


def shown(path: str) -> str:
    """Returns any name in a form that is safe to print."""
    return ascii(path) if len(path) <= 60 else f"{path[:60]!a}..."
