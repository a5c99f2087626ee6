"""Errors about a feature cache."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from typing import final

from frostline._core.errors.base import ExpressionError, FrostlineError, counted


class CacheError(ExpressionError, ValueError):
    """A feature cache that does not go with a model, a dataset or a folder."""


@final
class StaleCacheError(CacheError, RuntimeError):
    """A cache below whose line something changed after it was opened."""


@final
class DamagedCacheError(CacheError, RuntimeError):
    """Features whose bytes are not those that were stored."""


@final
class CacheBudgetError(FrostlineError, ValueError):
    """A feature cache that would be larger than its budget.

    Attributes:
        directory: where it would be.
        budget: bytes that it may take.
        row: bytes that one view of one sample takes.
        samples: how many samples there are.
        views: how many views of each.
        totals: bytes that all would take, for the precision that was asked for first, then for smaller ones.
    """

    directory: str
    budget: int
    row: int
    samples: int
    views: int
    totals: Mapping[str, int]

    def _lines(self) -> Iterable[str]:
        (precision, total), *smaller = self.totals.items()
        views = f" × {self.views} views" if self.views > 1 else ""
        yield (
            f"FeatureCache({self.directory!r}, budget={self.budget}) is too small by {total - self.budget} bytes: "
            f"{self.row} bytes a sample × {counted(self.samples, 'sample')}{views} = {total} bytes."
        )
        yield "It would take:"
        for word, size in ((precision, total), *smaller):
            yield f"  {f'dtype={word!r}':<16} {size} bytes{'' if size > self.budget else ', which fits'}"
        fits = [word for word, size in smaller if size <= self.budget]
        if fits:
            yield f"Store less of each number: FeatureCache(..., dtype={fits[0]!r}); or raise it: budget={total}."
        else:
            yield f"Raise the budget: FeatureCache(..., budget={min(self.totals.values())}); or take fewer samples."


@final
class CacheSpaceError(FrostlineError, OSError):
    """A disk that has no room for a feature cache; `errno` is ENOSPC.

    Attributes:
        directory: where the cache is.
        needed: bytes that are still to be written.
        free: bytes that the disk has.
        stored: how many rows are there.
        rows: how many there are to be.
    """

    directory: str
    needed: int
    free: int
    stored: int
    rows: int

    def __post_init__(self) -> None:
        self.errno = errno.ENOSPC
        super().__post_init__()

    def _lines(self) -> Iterable[str]:
        yield f"cache.fill(...) needs {self.needed} bytes more in {self.directory!r}, and the disk has {self.free}."
        yield f"{self.stored} of {self.rows} rows are stored, and stay; nothing is half-written."
        yield "Make room, then call cache.fill(...) again: it computes only what is missing."


def differences(pairs: Mapping[str, tuple[object, object]]) -> tuple[str, ...]:
    """What is one way here and another way there, a line each.

    Example:
        >>> differences({"dtype": ("int8", "bfloat16"), "views": (1, 1)})
        ("dtype: 'int8' in the cache, 'bfloat16' asked for",)
    """
    return tuple(f"{key}: {a!r} in the cache, {b!r} asked for" for key, (a, b) in pairs.items() if a != b)
