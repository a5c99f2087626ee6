"""Reading rows of a feature cache from memory-mapped shards."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

from frostline._core.errors import DamagedCacheError
from frostline._core.files import reason
from frostline.features.columns import DIGEST
from frostline.features.shards import Damage, Shard, checked, row_digest

Place = tuple[int, int]
"""The number of a shard, and of a row in it."""

# Each map keeps a file open, and a process may have about a thousand open files.
MOST_MAPS = 256


@final
class Reader:
    """Reads rows, and compares each with its digest when this process reads it for the first time.

    A reader can be pickled and forked: every process maps the files again.

    Args:
        shards: the files; a place is the number of a shard in this list and the number of a row in it.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        self._maps: dict[int, memoryview] = {}
        self._seen: dict[int, bytearray] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Reader, (self.shards,)

    def rows(self, places: Sequence[Place], names: Sequence[str]) -> dict[str, bytearray]:
        """Returns the bytes of some rows, one after another, for each column.

        Args:
            places: the rows, in any order.
            names: the columns.

        Raises:
            DamagedCacheError: the bytes of a row have changed since they were stored.
        """
        self._check(places)
        return {name: self._column(places, name) for name in names}

    def damage(self, number: int) -> Damage | None:
        """Returns the damage of a shard, or None, after reading all of its rows."""
        shard = self.shards[number]
        try:
            wrong = [row for row in range(len(shard.keys)) if not self._is_sound(number, row)]
        except DamagedCacheError as error:
            return Damage(shard.file, error.found[0].partition(": ")[2], len(shard.keys))
        if not wrong:
            return None
        return Damage(shard.file, f"{len(wrong)} of its {len(shard.keys)} rows are not what was stored", len(wrong))

    def _column(self, places: Sequence[Place], name: str) -> bytearray:
        width = self.shards[0].spans[name][1] if places else 0
        room = bytearray(len(places) * width)
        for number, (shard, row) in enumerate(places):
            at = self.shards[shard].spans[name][0] + row * width
            room[number * width : (number + 1) * width] = self._map(shard)[at : at + width]
        return room

    def _check(self, places: Sequence[Place]) -> None:
        for number, row in places:
            seen = self._seen.get(number)
            if seen is None:
                seen = self._seen[number] = bytearray(len(self.shards[number].keys))
            if not seen[row]:
                if not self._is_sound(number, row):
                    shard = self.shards[number]
                    raise damaged(shard.file, f"the row of sample {shard.keys[row]!r} is not what was stored")
                seen[row] = 1

    def _is_sound(self, number: int, row: int) -> bool:
        shard, view = self.shards[number], self._map(number)
        parts = (shard.spans[column.name] for column in checked(shard.columns))
        digest = row_digest(view[begin + row * width : begin + (row + 1) * width] for begin, width in parts)
        begin, width = shard.spans[DIGEST.name]
        return digest == view[begin + row * width : begin + (row + 1) * width]

    def _map(self, number: int) -> memoryview:
        found = self._maps.get(number)
        if found is None:
            if len(self._maps) >= MOST_MAPS:
                # Not closed here: the map closes itself with its last slice.
                self._maps.pop(next(iter(self._maps)))
            found = self._maps[number] = _mapped(self.shards[number])
        return found


def damaged(file: Path, problem: str) -> DamagedCacheError:
    """Returns the error for a shard that cannot be read."""
    words = "holds 1 shard that is not what was written."
    fix = "Compute it again: cache.fill(dataset). To see all: frostline cache verify DIR"
    return DamagedCacheError(f"The cache {str(file.parent)!r}", words, (f"{file.name}: {problem}",), fix)


def _mapped(shard: Shard) -> memoryview:
    try:
        with shard.file.open("rb") as stream:
            found = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise damaged(shard.file, reason(error)) from None
    if len(found) != shard.nbytes:
        raise damaged(shard.file, f"it has {len(found)} bytes, not {shard.nbytes}")
    return found
