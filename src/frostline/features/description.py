"""A feature cache described in words and as data."""

from __future__ import annotations

from collections.abc import Sequence

from frostline._core.errors.base import counted
from frostline._core.reporting.units import human
from frostline.features.shards import Damage
from frostline.features.store import Store


def to_dict(store: Store) -> dict[str, object]:
    """Returns the description of a cache as data for JSON."""
    manifest = store.manifest
    return {
        "directory": str(store.folder),
        "fingerprint": manifest.fingerprint,
        "preprocessing": manifest.preprocessing,
        "dtype": manifest.precision,
        "samples": manifest.samples,
        "views": manifest.views,
        "rows": store.rows,
        "rows_when_full": manifest.rows,
        "bytes": store.nbytes,
        "bytes_a_row": manifest.row,
        "shards": len(store.shards),
        "unreadable_shards": len(store.damages),
        "unfinished_files": len(store.leftovers()),
        "values": [
            {"name": value.name, "dtype": value.dtype, "shape": list(value.shape), "stored": value.stored}
            for value in manifest.values
        ],
    }


def summary(store: Store) -> list[str]:
    """Returns the description of a cache as lines of text."""
    manifest = store.manifest
    full = 100 * store.rows // manifest.rows if manifest.rows else 0
    views = f" × {manifest.views} views" if manifest.views > 1 else ""
    lines = [
        f"{str(store.folder)!r} is a feature cache.",
        f"  model          {manifest.fingerprint}",
        f"  preprocessing  {manifest.preprocessing or '-'}",
        f"  dtype          {manifest.precision}",
        f"  rows           {store.rows} of {counted(manifest.samples, 'sample')}{views}: {full} % full",
        f"  size           {human(store.nbytes)} in {counted(len(store.shards), 'shard')}, {manifest.row} bytes a row",
    ]
    for number, value in enumerate(manifest.values):
        shape, stored = ", ".join(map(str, value.shape)), "" if value.stored == value.dtype else f" as {value.stored}"
        lines.append(f"  value {number}        {value.name}: {value.dtype}[{shape}]{stored}")
    if store.damages:
        lines.append(f"  unreadable     {counted(len(store.damages), 'shard')}; see: frostline cache verify")
    return lines


def verdict(store: Store, damages: Sequence[Damage]) -> list[str]:
    """Returns the result of reading every byte as lines of text."""
    shards = len(store.shards) + len(store.damages)
    leftovers = store.leftovers()
    bad = f"{len(damages)} of {counted(shards, 'shard')} damaged"
    lines = [f"{str(store.folder)!r}: {bad}, {store.rows} rows read."]
    lines += [f"  {damage.file.name}: {damage.problem}" for damage in damages]
    if damages:
        lines.append("Compute them again: cache.fill(dataset)")
    if leftovers:
        lines.append(f"{counted(len(leftovers), 'file')} of an interrupted fill; the next fill cleans up.")
    return lines
