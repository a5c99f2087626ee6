"""A feature cache on disk: a folder with a manifest and shards. No framework: bytes in, bytes out.

A front end writes the columns of `Manifest.columns` and reads them, and makes arrays of the bytes itself:

    manifest = Manifest.of(line.fingerprint(), line.boundary, samples=len(dataset), rest=..., structure=...)
    store = Store(folder, manifest)         # nothing is written yet
    store.missing(keys, view)               # the positions in keys whose rows must be computed
    check_budget(...), check_disk(...)      # before anything is written, in room.py
    store.create()                          # the folder and the manifest
    writer = Writer(store, rank)            # in writing.py
    writer.add(view, keys, {"value.0": ..., "rest.0": ..., "source": ...})
    writer.flush()
    store.refresh()                         # finds the shards of this and other processes
    reader = store.reader()
    reader.rows(store.places(keys, view), ["value.0"])["value.0"]   # a bytearray, row after row

The name of a shard contains a digest of its content and the rank that wrote it. A shard is renamed into place when it
is complete, and never changes. The manifest describes the shards but does not list them. So several processes may write
at once, and after a kill at any moment the cache can be filled further.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

from frostline._core.errors import CacheError
from frostline._core.files import reason
from frostline.checkpoint.replacement import replacing
from frostline.features.manifest import NAME, Manifest
from frostline.features.reading import Place, Reader
from frostline.features.shards import PART, SHARD, Damage, Key, Shard

_MANIFEST_PART = re.compile(rf"\.{re.escape(NAME)}\.[0-9a-f]{{8}}\.part")


@final
class Store:
    """A folder of features.

    Attributes:
        folder: the path of the folder.
        manifest: the description of its rows.
        shards: the readable files.
        damages: the unreadable files.

    Example:
        >>> import tempfile
        >>> from frostline.features.boundary import Boundary
        >>> from frostline.features.writing import Writer
        >>> manifest = Manifest.of("1f3a", [Boundary("layer", (2,), "uint8", 2)], samples=2)
        >>> store = Store(Path(tempfile.mkdtemp()) / "features", manifest)
        >>> store.create()
        >>> writer = Writer(store)
        >>> writer.add(0, [0, 1], {"value.0": b"abcd", "source": bytes(32)})
        >>> writer.flush()
        >>> store.refresh()
        >>> store.reader().rows(store.places([1, 0], view=0), ["value.0"])
        {'value.0': bytearray(b'cdab')}
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.shards: list[Shard] = []
        self.damages: list[Damage] = []
        self._places: dict[tuple[Key, int], Place] = {}
        self._without: set[Path] = set()
        self.refresh()

    @classmethod
    def opened(cls, folder: str | os.PathLike[str]) -> Store:
        """Opens the cache in a folder.

        Raises:
            CacheError: the folder holds no cache.
        """
        manifest = found(Path(folder))
        if manifest is None:
            words = "is not a feature cache: the folder does not exist or is empty."
            fix = f"Make one: cache = FeatureCache({str(folder)!r}, line); cache.fill(dataset)"
            raise CacheError(repr(str(folder)), words, (), fix)
        return cls(Path(folder), manifest)

    @property
    def nbytes(self) -> int:
        """The size of all shards."""
        return sum(shard.nbytes for shard in self.shards)

    @property
    def rows(self) -> int:
        """The number of stored rows, each counted once."""
        return len(self._places)

    def create(self) -> None:
        """Creates the folder, and writes the manifest if it is missing.

        Raises:
            OSError: the manifest cannot be written.
            CacheError: another process has written something else there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two processes may write at the same time; if the file of one is gone, the manifest of the other is there.
        for last in (False, False, True):
            if found(self.folder) == self.manifest:
                return
            try:
                with replacing(self.folder / NAME) as stream:
                    stream.write(self.manifest.to_json().encode())
            except FileNotFoundError:
                if last:
                    raise

    def refresh(self) -> None:
        """Reads the list of shards from the folder again."""
        known = {shard.file: shard for shard in self.shards}
        files = sorted({*_matching(self.folder, SHARD.fullmatch)} - self._without)
        read = [known.get(file) or Shard.read(file, self.manifest) for file in files]
        self.shards = [shard for shard in read if isinstance(shard, Shard)]
        self.damages = [damage for damage in read if isinstance(damage, Damage)]
        self._places = {}
        for number, shard in enumerate(self.shards):
            for row, key in enumerate(shard.keys):
                self._places.setdefault((key, shard.view), (number, row))

    def forget(self, files: Iterable[Path]) -> None:
        """Treats shards as missing from now on; the files stay."""
        self._without |= set(files)
        self.refresh()

    def missing(self, keys: Sequence[Key], view: int) -> list[int]:
        """Returns the positions of the keys whose rows are missing."""
        return [position for position, key in enumerate(keys) if (key, view) not in self._places]

    def places(self, keys: Iterable[Key], view: int) -> list[Place]:
        """Returns the places of the rows of some keys, all of which must be stored."""
        return [self._places[key, view] for key in keys]

    def reader(self) -> Reader:
        """Returns a reader of the current shards."""
        return Reader(self.shards)

    def verify(self, seen: Callable[[], object] = lambda: None) -> list[Damage]:
        """Reads every byte, and returns the damaged shards.

        Args:
            seen: a function to call after each shard.
        """
        damages, reader = list(self.damages), self.reader()
        for number in range(len(self.shards)):
            damage = reader.damage(number)
            damages += [damage] if damage else []
            seen()
        return damages

    def leftovers(self) -> list[Path]:
        """Returns the unfinished files of killed or running writers."""
        return sorted(_matching(self.folder, PART.fullmatch))

    def remove(self, files: Iterable[Path]) -> None:
        """Removes shards or leftovers of this cache, then refreshes."""
        for file in files:
            file.unlink(missing_ok=True)
            self._without.discard(file)
        self.refresh()

    def leftovers_of(self, rank: int, ranks: int) -> list[Path]:
        """Returns the leftovers of the killed process that this one replaces; other ranks remove their own."""
        writers = {file: int(PART.fullmatch(file.name)[1]) for file in self.leftovers()}  # type: ignore[index]
        return [file for file, writer in writers.items() if writer == rank or (rank == 0 and writer >= ranks)]

    def clear(self) -> None:
        """Removes the files of the cache, and the folder if it is then empty and not a link."""
        unfinished = _matching(self.folder, _MANIFEST_PART.fullmatch)
        self.remove([*_matching(self.folder, SHARD.fullmatch), *self.leftovers(), *unfinished])
        # The manifest goes last, so that a cache whose clearing was killed can be cleared again.
        (self.folder / NAME).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            with suppress(OSError):  # The folder is a link, or its parent is read-only; it holds no cache any more.
                self.folder.rmdir()


def found(folder: Path) -> Manifest | None:
    """Returns the manifest in a folder, or None if a cache can be created there.

    Raises:
        CacheError: the folder holds something else, and is left unchanged.
    """
    try:
        return Manifest.from_json((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        if all(map(_MANIFEST_PART.fullmatch, names)):
            return None
        problem = f"is not a feature cache: none of its {len(names)} files is {NAME}. Nothing was changed."
        raise CacheError(repr(str(folder)), problem, tuple(names), f"Use a new folder: {_beside(folder)}") from None
    except (OSError, ValueError) as error:
        problem = f"is not a readable feature cache: {reason(error)}. Nothing was changed."
        raise CacheError(repr(str(folder)), problem, (), f"Use a new folder: {_beside(folder)}") from None


def _beside(folder: Path) -> str:
    return f"FeatureCache({f'{folder}-features'!r}, line)"


def _matching(folder: Path, matches: Callable[[str], object]) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if matches(name)]
    except FileNotFoundError:
        return []
