"""Filling a cache: the missing rows, the share of each process, and the room on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import final

from frostline._core.errors import CacheError
from frostline.features.room import check_budget, check_disk
from frostline.features.shards import Damage, Key
from frostline.features.store import Store
from frostline.features.writing import Writer

Columns = Mapping[str, memoryview]
Batches = Callable[[list[int]], Iterator[tuple[Sequence[int], Columns]]]
"""Takes the indices of samples, and yields some of them at a time with their columns."""


@final
class Filling:
    """The work of one process that fills a store.

    Args:
        store: the store to fill.
        keys: the keys of all samples.
        rank: the number of this process.
        ranks: the number of processes.
        verify: whether to read every stored byte; otherwise only headers and sizes are checked.
        progress: whether to show progress bars on a terminal.

    Raises:
        CacheError: the rank is not below the number of processes.
    """

    def __init__(
        self, store: Store, keys: Sequence[Key], *, rank: int, ranks: int, verify: bool, progress: bool
    ) -> None:
        if not 0 <= rank < ranks:
            raise CacheError(
                f"cache.fill(rank={rank}, ranks={ranks})", "is not the rank of a process.", (), "Ranks begin at 0."
            )
        self._store, self._keys, self._rank, self._ranks, self._progress = store, keys, rank, ranks, progress
        self._broken = [damage.file for damage in (self._verified() if verify else store.damages)]
        store.forget(self._broken)

    def run(self, budget: int | None, batches: Batches) -> None:
        """Removes damaged shards, then computes and stores all missing rows.

        Args:
            budget: the most bytes that the cache may take, or None.
            batches: computes the features.

        Raises:
            CacheBudgetError: the cache would exceed the budget; nothing was written.
            CacheSpaceError: the disk has too little space.
        """
        store = self._store
        todo = [store.missing(self._keys, view) for view in range(store.manifest.views)]
        check_budget(store.folder, store.manifest, budget)
        check_disk(store.folder, store.manifest, store.manifest.rows - sum(map(len, todo)))
        store.create()
        store.remove([*self._broken, *store.leftovers_of(self._rank, self._ranks)])
        self._write([[i for i in indices if i % self._ranks == self._rank] for indices in todo], batches)

    def _write(self, mine: Sequence[list[int]], batches: Batches) -> None:
        writer = Writer(self._store, self._rank)
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


def positive(name: str, number: int) -> int:
    """Returns a number after checking that it is a positive integer.

    Raises:
        CacheError: it is not a positive integer.
    """
    if type(number) is not int or number < 1:
        raise CacheError(f"{name}={number!r}", "must be a positive integer.", (), f"Write {name}=1, or more.")
    return number


@contextmanager
def counting(words: str, total: int, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of further items done; the bar is on stderr, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(words, total=total)
        yield lambda more: bar.update(task, advance=more)
