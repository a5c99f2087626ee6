"""Writing rows as shards."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import final

from frostline._core.errors import CacheSpaceError
from frostline._core.fingerprint import Bytes
from frostline.checkpoint.replacement import replacing
from frostline.checkpoint.safetensors_header import in_order
from frostline.features.columns import DIGEST, Column
from frostline.features.room import free_bytes
from frostline.features.shards import Key, checked, head, name_of, row_digest
from frostline.features.store import Store

# A shard is written when one of these limits is reached; until then a kill loses the rows in memory.
MOST_ROWS = 4096
MOST_BYTES = 256 << 20
MOST_SECONDS = 60.0

# Not every system has quotas.
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


@final
class Writer:
    """Collects rows and writes a shard whenever it has enough; shards in the folder are always complete.

    Args:
        store: the store to write to.
        rank: the rank of this process; file names contain it, so that two processes never write the same file.
    """

    def __init__(self, store: Store, rank: int = 0) -> None:
        self._store, self._manifest, self._rank = store, store.manifest, rank
        self._begin(0)

    def add(self, view: int, keys: Sequence[Key], rows: Mapping[str, Bytes]) -> None:
        """Adds rows.

        Args:
            view: the view of the rows.
            keys: the keys of their samples.
            rows: the bytes of each column except the digest, row after row.

        Raises:
            CacheSpaceError: the disk is full.
            OSError: a shard cannot be written; no part of it is left.
        """
        if view != self._view:
            self.flush()
            self._begin(view)
        columns = checked(self._manifest.columns)
        parts = {column.name: _parts(column, rows[column.name], len(keys)) for column in columns}
        for row in range(len(keys)):
            self._digests += row_digest(parts[column.name][row] for column in columns)
        for column in columns:
            # A copy, because the caller may reuse its memory.
            self._rows[column.name].append(bytes(rows[column.name]))
        self._keys += keys
        size = len(self._keys) * self._manifest.row
        if len(self._keys) >= MOST_ROWS or size >= MOST_BYTES or time.monotonic() - self._begun > MOST_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the collected rows, if there are any.

        Raises:
            CacheSpaceError: the disk is full.
            OSError: the shard cannot be written.
        """
        if self._keys:
            file = self._store.folder / name_of(self._rank, self._view, self._keys)
            try:
                with replacing(file) as stream:
                    stream.writelines(self._lines())
            except OSError as error:
                raise self._full() if error.errno in _FULL else error from None
        self._begin(self._view)

    def _full(self) -> CacheSpaceError:
        store, manifest = self._store, self._manifest
        store.refresh()
        needed = manifest.row * (manifest.rows - store.rows)
        return CacheSpaceError(str(store.folder), needed, free_bytes(store.folder), store.rows, manifest.rows)

    def _lines(self) -> Iterator[Bytes]:
        yield head(self._manifest, self._view, self._keys)
        for name in self._order():
            yield from (self._digests,) if name == DIGEST.name else self._rows[name]

    def _order(self) -> list[str]:
        return [tensor.path for tensor in in_order(column.of(len(self._keys)) for column in self._manifest.columns)]

    def _begin(self, view: int) -> None:
        self._view, self._begun = view, time.monotonic()
        self._keys: list[Key] = []
        self._digests = bytearray()
        self._rows: dict[str, list[bytes]] = {column.name: [] for column in checked(self._manifest.columns)}


def _parts(column: Column, data: Bytes, rows: int) -> list[memoryview]:
    view, width = memoryview(data).cast("B"), column.nbytes
    if len(view) != rows * width:
        raise ValueError(f"{column.name} has {len(view)} bytes for {rows} rows of {width}")
    return [view[row * width : (row + 1) * width] for row in range(rows)]
