"""Whether there is room for a feature cache: asked before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from frostline._core.errors import CacheBudgetError, CacheSpaceError
from frostline.features.manifest import Manifest
from frostline.features.precision import smaller


def check_budget(folder: Path, manifest: Manifest, budget: int | None) -> None:
    """Checks that a full cache is not larger than its budget.

    Raises:
        CacheBudgetError: it would be larger.
    """
    if budget is None or manifest.total <= budget:
        return
    words = (manifest.precision, *smaller(manifest.precision))
    totals = {word: manifest.with_precision(word).total for word in words}
    raise CacheBudgetError(str(folder), budget, manifest.row, manifest.samples, manifest.views, totals)


def check_disk(folder: Path, manifest: Manifest, stored: int) -> None:
    """Sees that the disk has room for the rows that are not there yet.

    Args:
        folder: where they go, which need not exist.
        manifest: what each of them is.
        stored: how many are there.

    Raises:
        CacheSpaceError: it has not.
    """
    needed = manifest.row * (manifest.rows - stored)
    if needed > (free := free_bytes(folder)):
        raise CacheSpaceError(str(folder), needed, free, stored, manifest.rows)


def free_bytes(folder: Path) -> int:
    """Bytes that the disk under a folder has left."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free
