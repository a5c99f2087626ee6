"""One file of a feature cache: rows of one view, as a safetensors file that is written once and never changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, final

from xxhash import xxh3_64_digest, xxh3_64_hexdigest

from frostline._core import document
from frostline._core.files import reason
from frostline._core.fingerprint import Bytes
from frostline.checkpoint.safetensors_header import MOST_BYTES, header, in_order
from frostline.features.columns import DIGEST, Column
from frostline.features.manifest import Manifest

Key = int | str
"""The key of a sample: its number in the dataset, or the result of the user's function."""

SHARD = re.compile(r"shard-r(\d+)-[0-9a-f]{16}\.safetensors")
PART = re.compile(r"\.shard-r(\d+)-[0-9a-f]{16}\.safetensors\.[0-9a-f]{8}\.part")
_METADATA = "frostline.shard"
_KIND = "feature_shard"


@final
@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged shard.

    Attributes:
        file: its path.
        problem: the fault, as a part of a sentence.
        rows: the number of unreadable rows; None if that is unknown.
    """

    file: Path
    problem: str
    rows: int | None = None


@final
@dataclass(frozen=True)
class Shard:
    """A file of rows.

    Attributes:
        file: its path.
        view: the view of its rows.
        keys: the keys of its rows, in order.
        begin: the byte at which the arrays begin.
        columns: the columns of each row.
    """

    file: Path
    view: int
    keys: tuple[Key, ...]
    begin: int
    columns: tuple[Column, ...]

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]]:
        """The first byte of each array in the file, and the bytes of one of its rows."""
        spans, at, widths = {}, self.begin, {column.name: column.nbytes for column in self.columns}
        for tensor in in_order(column.of(len(self.keys)) for column in self.columns):
            spans[tensor.path] = at, widths[tensor.path]
            at += tensor.nbytes
        return spans

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return self.begin + len(self.keys) * sum(column.nbytes for column in self.columns)

    @classmethod
    def read(cls, file: Path, manifest: Manifest) -> Shard | Damage:
        """Reads the header of a file without checking the arrays."""
        try:
            with file.open("rb") as stream:
                shard = cls._parsed(file, manifest, stream)
                if (size := stream.seek(0, 2)) != shard.nbytes:
                    return Damage(file, f"it has {size} bytes, not {shard.nbytes}", len(shard.keys))
        except (OSError, ValueError) as error:
            return Damage(file, reason(error))
        return shard

    @classmethod
    def _parsed(cls, file: Path, manifest: Manifest, stream: BinaryIO) -> Shard:
        length = stream.read(8)
        text = stream.read(min(int.from_bytes(length, "little"), MOST_BYTES))
        try:
            metadata = json.loads(text)["__metadata__"]
            said = document.fields(document.parse(metadata[_METADATA]), _KIND, ("digest", "keys", "model", "view"))
        except (TypeError, KeyError, ValueError, RecursionError):
            raise ValueError("its header is not the header of a shard") from None
        if said["model"] != manifest.fingerprint:
            raise ValueError(f"it belongs to another model, {said['model']!r}")
        if type(said["view"]) is not int or not _are_keys(said["keys"]):
            raise ValueError("its keys are not valid")
        # These rows of this cache have exactly one valid header, so comparing it checks all of its fields.
        if length + text != head(manifest, said["view"], said["keys"]):
            raise ValueError("its header is not what was written")
        return cls(file, said["view"], tuple(said["keys"]), len(length + text), manifest.columns)


def head(manifest: Manifest, view: int, keys: Sequence[Key]) -> bytes:
    """Returns the header of a shard.

    Raises:
        ValueError: a key cannot be written as JSON.
    """
    said: dict[str, Any] = {"model": manifest.fingerprint, "view": view, "keys": list(keys)}
    said["digest"] = xxh3_64_hexdigest(_line(said))
    metadata = {_METADATA: _line(document.stamped(_KIND, said)).decode()}
    return header(in_order(column.of(len(keys)) for column in manifest.columns), metadata)


def name_of(rank: int, view: int, keys: Sequence[Key]) -> str:
    """Returns the name of a shard; the same rows from the same rank give the same name."""
    return f"shard-r{rank}-{xxh3_64_hexdigest(_line([view, list(keys)]))}.safetensors"


def row_digest(parts: Iterator[Bytes]) -> bytes:
    """Returns the digest that is stored with a row; the parts come in the order of the columns."""
    # A digest of digests, so that the parts need not be copied into one piece.
    return xxh3_64_digest(b"".join(xxh3_64_digest(part) for part in parts))


def checked(columns: Sequence[Column]) -> list[Column]:
    """Returns the columns that the digest of a row covers."""
    return [column for column in columns if column != DIGEST]


def _are_keys(keys: object) -> bool:
    return isinstance(keys, list) and all(type(key) in (int, str) for key in keys)


def _line(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
