"""A store of small rows, and ways to break it; no framework is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from frostline.features.boundary import Boundary
from frostline.features.columns import Column
from frostline.features.manifest import Manifest
from frostline.features.store import Store
from frostline.features.writing import Writer

LAYER = Boundary("layer3", (5,), "float32", 20)
MADE = "0123456789abcdef0123456789abcdef"


def manifest(**changed: object) -> Manifest:
    """20 bytes of a layer and a label; 52 bytes a row."""
    made = {"samples": 10, "rest": (Column("rest.0", "int64", ()),), "structure": ["tuple", "int"], **changed}
    return Manifest.of(MADE, [LAYER], **made)  # type: ignore[arg-type]


def layer(index: int, view: int = 0) -> bytes:
    """What is stored for a sample: other bytes for each."""
    return bytes([index % 256, view]) * 10


def label(index: int) -> bytes:
    return index.to_bytes(8, sys.byteorder)


def rows(indices: Iterable[int], view: int = 0) -> dict[str, bytes]:
    indices = list(indices)
    return {
        "value.0": b"".join(layer(index, view) for index in indices),
        "rest.0": b"".join(map(label, indices)),
        "source": b"".join(bytes([index % 256]) * 16 for index in indices),
    }


def filled(folder: Path, *shards: Iterable[int], **changed: object) -> Store:
    """A store with these samples in these shards."""
    store = Store(folder, manifest(**changed))
    store.create()
    writer = Writer(store)
    for indices in map(list, shards):
        writer.add(0, list(indices), rows(indices))
        writer.flush()
    store.refresh()
    return store


def contents(folder: Path) -> dict[str, bytes]:
    """All files in a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def flip(file: Path, at: int) -> None:
    """Turns one bit of a file, in place."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
