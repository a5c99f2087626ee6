"""Checks before anything is written: the budget of a feature cache, and the space on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from frostline._core.errors import CacheBudgetError, CacheSpaceError
from frostline.features.manifest import Manifest
from frostline.features.precision import smaller


def check_budget(folder: Path, manifest: Manifest, budget: int | None) -> None:
    """Checks that a full cache is not larger than its budget.

    Raises:
        CacheBudgetError: the full cache would be larger.
    """
    if budget is None or manifest.total <= budget:
        return
    words = (manifest.precision, *smaller(manifest.precision))
    totals = {word: manifest.with_precision(word).total for word in words}
    raise CacheBudgetError(str(folder), budget, manifest.row, manifest.samples, manifest.views, totals)


def check_disk(folder: Path, manifest: Manifest, stored: int) -> None:
    """Checks that the disk has room for the missing rows.

    Args:
        folder: the folder of the cache, which need not exist.
        manifest: the layout of a row.
        stored: the number of rows that are stored already.

    Raises:
        CacheSpaceError: the disk has too little space.
    """
    needed = manifest.row * (manifest.rows - stored)
    if needed > (free := free_bytes(folder)):
        raise CacheSpaceError(str(folder), needed, free, stored, manifest.rows)


def free_bytes(folder: Path) -> int:
    """Returns the free bytes of the disk that holds a folder."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free
