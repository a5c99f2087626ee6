"""The features of each sample, computed once and stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np

from frostline._core.errors import CacheError
from frostline.features import agreement, filling, precision
from frostline.features.columns import SOURCE
from frostline.features.manifest import Manifest
from frostline.features.shards import Damage, Key
from frostline.features.sizes import parsed
from frostline.features.store import Store
from frostline.features.structure import first
from frostline.jax._arrays import bytes_of, described
from frostline.jax._cache.codec import encoded
from frostline.jax._cache.dataset import CachedDataset
from frostline.jax._cache.samples import Dataset, Packed, Samples, Split
from frostline.jax._line.line import FrostLine


@final
class FeatureCache:
    """A folder with the values that cross a line, for each sample of a dataset.

    The folder belongs to one line: to the arrays, the steps and the dtypes of all that is below it. A cache of another
    tree is refused, and so is one of a tree that was thawed below the line. The format is that of the PyTorch front
    end, and ``frostline cache info|verify|clear DIR`` reads it.

    Args:
        directory: the folder; made when it is filled.
        line: the line, as `frostline` returns it.
        dtype: how floats are stored: "exact" (bitwise, the default), "float32", "bfloat16", or "int8" (steps between
            the least and the greatest number of a sample). They come back in the dtype of the boundary.
        budget: the most that it may take, in bytes or as "20GB"; None for all that the disk has.
        views: how many views of each sample are stored, of a dataset whose samples are random.
        preprocessing: a name for the processing before the model; another name is another cache.
        split: sample → (inputs of the model, rest); by default the first part is the input. Several inputs are a
            tuple. The rest, such as a label, is stored as well.
        key: index → the key of the sample, a number or a text; by default the index.

    Raises:
        CacheError: `line` is not a line; the folder is something else, or the cache of another line, dtype,
            preprocessing or number of views.
        LineError: a Python function is called below the line.

    Example:
        >>> import tempfile
        >>> params = freeze({"body": jnp.ones((3, 4)), "head": jnp.ones((4, 2))}, "body")
        >>> line = frostline(lambda p, x: jnp.tanh(x @ p["body"]) @ p["head"], params, jnp.ones((5, 3)))
        >>> dataset = [(np.full(3, number, np.float32), number % 2) for number in range(20)]
        >>> cache = FeatureCache(tempfile.mkdtemp(), line, dtype="bfloat16", budget="1MB")
        >>> cache.fill(dataset)
        >>> features, labels = cache.dataset(dataset).batch(range(8))
        >>> line.above(params, *features).shape, labels.shape
        ((8, 2), (8,))
        >>> cache
        FeatureCache(..., 20 of 20 samples, bfloat16, ...)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        line: FrostLine,
        *,
        dtype: Any = precision.EXACT,
        budget: int | str | None = None,
        views: int = 1,
        preprocessing: str = "",
        split: Split = first,
        key: Callable[[int], Key] | None = None,
    ) -> None:
        if not isinstance(line, FrostLine):
            problem, fix = f"got {described(line)} as a line.", "Draw a line: line = frostline(fn, tree, *example)."
            raise CacheError("FeatureCache(directory, line)", problem, (), fix)
        self.directory = Path(directory)
        self._line, self._split, self._key = line, split, key
        self._budget = None if budget is None else parsed(budget)
        self._said = Manifest.of(
            line.fingerprint(),
            line.boundary,
            samples=0,
            precision=dtype if isinstance(dtype, str) else jnp.dtype(dtype).name,
            preprocessing=preprocessing,
            views=filling.positive("views", views),
        )
        agreement.check_made_alike(self.directory, self._said)

    def fill(
        self,
        dataset: Dataset,
        *,
        batch_size: int = 64,
        rank: int = 0,
        ranks: int = 1,
        verify: bool = True,
        progress: bool = True,
    ) -> None:
        """Computes and stores the rows that are missing, and computes damaged shards again.

        It may be killed at any instant, and called again: stored rows stay. Of several processes, each with its own
        rank, every one computes its own part of the samples. The part below is compiled once, because all batches have
        one size: the last one is filled up with its last sample.

        Args:
            dataset: with a length and samples by index, always the same ones unless there are several views: arrays
                without a dimension for samples, nested as the line's example is.
            batch_size: how many samples go through the model at a time.
            rank: which of the processes that fill the cache this one is.
            ranks: how many there are.
            verify: whether all stored bytes are compared with their digests first; if not, only headers and sizes are
                checked.
            progress: whether to show a bar, on a terminal.

        Raises:
            CacheError: the dataset has no length, its samples are random, or they cannot be stored.
            CacheBudgetError: it would be larger than the budget; nothing was written.
            CacheSpaceError: the disk has no room.
            LineError: samples have other shapes or dtypes than the line's example.
        """
        size = filling.positive("batch_size", batch_size)
        keys, samples = agreement.keys_of(dataset, self._key), Samples.of(dataset, self._split)
        wanted = replace(self._said, samples=len(keys), rest=samples.rest, structure=samples.structure)
        store = agreement.planned(self.directory, wanted)
        run = filling.Filling(store, keys, rank=rank, ranks=ranks, verify=verify, progress=progress)
        probes = agreement.probes(len(keys))
        found = samples.each(probes)
        for packed in found.values():
            self._line.checked(*packed.inputs)
        sources = _sources(found)
        agreement.check_random(sources, _sources(samples.each(probes)), wanted.views)
        if wanted.views == 1:
            agreement.check_sources(store, keys, sources)
        size = min(size, len(keys))

        def batches(indices: list[int]) -> Iterator[tuple[Sequence[int], filling.Columns]]:
            for some, packed in samples.batches(indices, size):
                crossing = self._line.computed(*jax.tree.map(lambda leaf: _filled_up(leaf, size), packed.inputs))
                columns = {name: bytes_of(array) for name, array in packed.columns.items()}
                for number, (value, batch) in enumerate(zip(wanted.values, crossing, strict=True)):
                    columns |= encoded(value, number, np.asarray(batch)[: len(some)])
                yield some, columns

        run.run(self._budget, batches)

    def dataset(self, dataset: Dataset) -> CachedDataset:
        """Returns the dataset with features in place of the model's inputs.

        Args:
            dataset: the one that the cache was filled with. Some of its samples are read to check that.

        Raises:
            CacheError: not all of its samples are stored, or it is another dataset.
            DamagedCacheError: stored bytes have changed.
        """
        keys = agreement.keys_of(dataset, self._key)
        store = agreement.complete(self.directory, self._said, keys)
        manifest = store.manifest
        if manifest.views == 1:
            samples = Samples(dataset, self._split, manifest.rest, manifest.structure)
            agreement.check_sources(store, keys, _sources(samples.each(agreement.probes(len(keys)))))
        return CachedDataset(store.reader(), [store.places(keys, view) for view in range(manifest.views)], manifest)

    def verify(self) -> list[Damage]:
        """Reads every byte and returns the damaged shards, which `fill` computes again."""
        return Store.opened(self.directory).verify()

    def __repr__(self) -> str:
        return agreement.state_of(self.directory, self._said)


def _sources(samples: dict[int, Packed]) -> dict[int, bytes]:
    """The digest of each sample."""
    return {index: packed.columns[SOURCE.name].tobytes() for index, packed in samples.items()}


def _filled_up(rows: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Rows, followed by copies of the last one."""
    return rows if len(rows) == size else np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
