"""Filling a cache: what is missing, which of several processes computes it, and whether there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

from frostline._core.errors import CacheError
from frostline.features import agreement
from frostline.features.progress import counting
from frostline.features.room import check_budget, check_disk
from frostline.features.shards import Damage, Key
from frostline.features.store import Store

Columns = Mapping[str, memoryview]
Batches = Callable[[list[int]], Iterator[tuple[Sequence[int], Columns]]]
"""Indices -> some of them at a time, with the columns of these samples."""


@final
class Filling:
    """What one of several processes does to fill a store.

    Args:
        store: what was planned.
        keys: of all samples.
        rank: which of the processes this one is.
        ranks: how many there are.
        verify: whether every byte that is there is read; if not, only headers and sizes are looked at.
        progress: whether to show bars, on a terminal.

    Raises:
        CacheError: there is no such rank.
    """

    def __init__(
        self, store: Store, keys: Sequence[Key], *, rank: int, ranks: int, verify: bool, progress: bool
    ) -> None:
        if not 0 <= rank < ranks:
            raise CacheError(f"cache.fill(rank={rank}, ranks={ranks})", "names no process.", (), "Ranks begin at 0.")
        self._store, self._keys, self._rank, self._ranks, self._progress = store, keys, rank, ranks, progress
        self._broken = [damage.file for damage in (self._verified() if verify else store.damages)]
        store.forget(self._broken)

    def run(self, budget: int | None, batches: Batches) -> None:
        """Stores what is missing; what is damaged goes first, and is missing.

        Args:
            budget: the most bytes that the cache may take; None is no limit.
            batches: computes.

        Raises:
            CacheBudgetError: it would be larger than the budget; nothing was written.
            CacheSpaceError: the disk has no room.
        """
        store = self._store
        todo = [store.missing(self._keys, view) for view in range(store.manifest.views)]
        check_budget(store.folder, store.manifest, budget)
        check_disk(store.folder, store.manifest, store.manifest.rows - sum(map(len, todo)))
        store.create()
        store.remove([*self._broken, *store.leftovers_of(self._rank, self._ranks)])
        self._write([[i for i in indices if i % self._ranks == self._rank] for indices in todo], batches)

    def _write(self, mine: Sequence[list[int]], batches: Batches) -> None:
        writer = self._store.writer(self._rank)
        title = f"Filling {self._store.folder.name}"
        with counting(title, sum(map(len, mine)), shown=self._progress) as done:
            for view, indices in enumerate(mine):
                for some, columns in batches(indices):
                    writer.add(view, [self._keys[index] for index in some], columns)
                    done(len(some))
            writer.flush()

    def _verified(self) -> list[Damage]:
        store = self._store
        with counting(f"Checking {store.folder.name}", len(store.shards), shown=self._progress) as done:
            return store.verify(lambda: done(1))


def keys_of(dataset: Any, key: Callable[[int], Key] | None) -> list[Key]:
    """What the samples of a dataset are known by.

    Raises:
        CacheError: it has no samples by index.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        problem = f"needs samples by index, and {type(dataset).__name__} has none."
        raise CacheError("A feature cache", problem, (), "Give a dataset with __len__ and __getitem__.")
    return agreement.keys_of(len(dataset), key)


def positive(name: str, number: int) -> int:
    """A number of things.

    Raises:
        CacheError: it is none.
    """
    if type(number) is not int or number < 1:
        raise CacheError(f"{name}={number!r}", "is no number of them.", (), f"Write {name}=1, or more.")
    return number
