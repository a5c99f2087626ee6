"""The feature cache: the features of each sample, computed once and stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import torch
from torch.utils.data import Dataset

from frostline._core.errors import CacheError
from frostline.features import agreement, filling, precision
from frostline.features.columns import SOURCE
from frostline.features.manifest import Manifest
from frostline.features.shards import Damage, Key
from frostline.features.sizes import parsed
from frostline.features.store import Store
from frostline.features.structure import first
from frostline.torch._cache.codec import encoded, raw
from frostline.torch._cache.dataset import CachedDataset
from frostline.torch._cache.samples import Packed, Samples, Split
from frostline.torch._cache.watch import CacheableLine, LineWatch
from frostline.torch._tensors import dtype_name


@final
class FeatureCache:
    """A folder with the values that cross a line, for each sample of a dataset.

    The folder belongs to one line: to the weights, buffers, operators and dtypes below it. The cache of another model
    is refused, and so is a cache whose model was thawed or changed below the line.

    Args:
        directory: the folder; made when it is filled.
        line: the line, as `frostline` returns it.
        dtype: the precision of stored floats: "exact" (bitwise, the default), "float32", "bfloat16", or "int8" (steps
            between the minimum and the maximum of a sample). Features are read in the dtype of the boundary.
        budget: the largest size, in bytes or as "20GB"; None for no limit.
        views: the number of stored views of each sample, for a dataset whose samples are random.
        preprocessing: a name for the preprocessing; another name needs another cache.
        split: sample → (inputs of the model, rest); by default the first part is the input. Several inputs are a
            tuple, or a dict of them by name. The rest, such as a label, is stored as well.
        key: index → the key of the sample, an int or a str; by default the index.

    Raises:
        CacheError: the folder is not a cache, or its cache has another line, dtype, preprocessing or number of views.

    Example:
        >>> import tempfile
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> handle = freeze(model, "0")
        >>> dataset = torch.utils.data.TensorDataset(torch.randn(20, 4), torch.arange(20) % 2)
        >>> line = frostline(model, torch.randn(2, 4))
        >>> cache = FeatureCache(tempfile.mkdtemp(), line, dtype="bfloat16", budget="1MB")
        >>> cache.fill(dataset)
        >>> for features, label in torch.utils.data.DataLoader(cache.dataset(dataset), batch_size=10):
        ...     nn.functional.cross_entropy(line.above(*features), label).backward()
        >>> cache
        FeatureCache(..., 20 of 20 samples, bfloat16, ...)
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        line: CacheableLine,
        *,
        dtype: str | torch.dtype = precision.EXACT,
        budget: int | str | None = None,
        views: int = 1,
        preprocessing: str = "",
        split: Split = first,
        key: Callable[[int], Key] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self._line, self._split, self._key = line, split, key
        self._budget = None if budget is None else parsed(budget)
        self._watch = LineWatch(line, agreement.name_of(self.directory))
        self._said = Manifest.of(
            self._watch.fingerprint,
            line.boundary,
            samples=0,
            precision=dtype if isinstance(dtype, str) else dtype_name(dtype),
            preprocessing=preprocessing,
            views=filling.positive("views", views),
        )
        agreement.check_made_alike(self.directory, self._said)

    def fill(
        self,
        dataset: Dataset[Any],
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
        verify: bool = True,
        progress: bool = True,
    ) -> None:
        """Computes and stores the rows that are missing, and computes damaged shards again.

        It may be killed at any moment and called again: stored rows stay. If several processes fill the cache, each
        with its own rank, each computes its own part of the samples.

        Args:
            dataset: a dataset with a length and an index; its samples must not change, unless several views are stored.
            batch_size: the number of samples in a call of the model. Kernels may round differently for another batch
                size, so features are bitwise those that ``line.below`` computes for the same batches.
            num_workers: the number of processes that read samples.
            rank: the number of this process among those that fill the cache.
            ranks: the number of processes that fill the cache.
            verify: whether to compare all stored bytes with their digests first; otherwise only headers and sizes are
                checked.
            progress: whether to show a progress bar on a terminal.

        Raises:
            CacheError: the dataset has no length, its samples are random, or they cannot be stored.
            CacheBudgetError: the cache would exceed the budget; nothing was written.
            CacheSpaceError: the disk has too little space.
            StaleCacheError: something below the line has changed.
        """
        self._watch.check(bytes_too=True)
        keys, samples = agreement.keys_of(dataset, self._key), Samples.of(dataset, self._split)
        wanted = replace(self._said, samples=len(keys), rest=samples.rest, structure=samples.structure)
        store = agreement.planned(self.directory, wanted)
        run = filling.Filling(store, keys, rank=rank, ranks=ranks, verify=verify, progress=progress)
        probes = agreement.probes(len(keys))
        sources = samples.sources(probes)
        agreement.check_random(sources, samples.sources(probes), wanted.views)
        if wanted.views == 1:
            agreement.check_sources(store, keys, sources)

        def batches(indices: list[int]) -> Iterator[tuple[Sequence[int], filling.Columns]]:
            for some, packed in samples.batches(indices, batch_size, num_workers):
                yield some, self._columns(packed, wanted)

        run.run(self._budget, batches)

    def dataset(self, dataset: Dataset[Any]) -> CachedDataset:
        """Returns the dataset with features in place of the model's inputs.

        Args:
            dataset: the dataset with which the cache was filled. Some of its samples are read to check this.

        Raises:
            CacheError: some samples are not stored, or it is another dataset.
            DamagedCacheError: stored features are damaged.
            StaleCacheError: something below the line has changed.
        """
        self._watch.check(bytes_too=True)
        keys = agreement.keys_of(dataset, self._key)
        store = agreement.complete(self.directory, self._said, keys)
        manifest = store.manifest
        if manifest.views == 1:
            samples = Samples(dataset, self._split, manifest.rest, manifest.structure)
            agreement.check_sources(store, keys, samples.sources(agreement.probes(len(keys))))
        places = [store.places(keys, view) for view in range(manifest.views)]
        return CachedDataset(store.reader(), places, manifest, self._watch)

    def verify(self) -> list[Damage]:
        """Reads every byte and returns the damaged shards, which `fill` computes again."""
        return Store.opened(self.directory).verify()

    def __repr__(self) -> str:
        return agreement.state_of(self.directory, self._said)

    def _columns(self, packed: Packed, manifest: Manifest) -> dict[str, memoryview]:
        """Computes the columns of some samples."""
        device = next((tensor.device for tensor in self._line.tensors.values()), torch.device("cpu"))
        named = {name: part.to(device) for name, part in packed.named.items()}
        crossing = self._line.below(*(part.to(device) for part in packed.args), **named)
        columns = {name: raw(tensor) for name, tensor in packed.columns.items()}
        rows = len(columns[SOURCE.name]) // SOURCE.nbytes
        for number, (value, batch) in enumerate(zip(manifest.values, crossing, strict=True)):
            if tuple(batch.shape) != (rows, *value.shape):
                problem = f"gave {list(batch.shape)} for {value.name!r}, not {[rows, *value.shape]}."
                raise CacheError("line.below(*inputs)", problem, (), "Draw the line with an example of the dataset.")
            columns |= encoded(value, number, batch.detach().cpu())
        return columns
