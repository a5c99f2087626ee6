"""What is below the line is computed once per sample, stored, and never again."""

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
from frostline.torch._cache.dataset import CachedDataset, Rows
from frostline.torch._cache.samples import Packed, Packing, Samples, Split
from frostline.torch._cache.watch import Below, Watch


@final
class FeatureCache:
    """A folder of what crosses a line, for each sample of a dataset.

    The folder belongs to one line: to the weights, buffers, graph and dtype of all that is below it. Another model's
    cache is refused, and so is one whose model was thawed or written to below the line.

    Args:
        directory: where it is; made when it is filled.
        line: what `frostline` found.
        dtype: how floats are stored: "exact" (bit for bit, the default), "float32", "bfloat16", or "int8" (steps
            between the least and the greatest number of a sample). They come back in the dtype of the boundary.
        budget: the most that it may take, in bytes or as "20GB"; None: what the disk has.
        views: how many views of each sample are stored, of a dataset whose samples are random.
        preprocessing: a name for what is done before the model; another name is another cache.
        split: sample → (what goes into the model, the rest); by default the first part does. Several things go
            into it as a tuple, or by name as a dict. The rest, such as a label, is stored as well.
        key: index → what the sample is known by, a number or a text; by default the index.

    Raises:
        CacheError: the folder is something else, or the cache of another line, dtype, preprocessing or number of views.

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
        line: Below,
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
        self._watch = Watch(line, agreement.name_of(self.directory))
        self._said = Manifest.of(
            self._watch.fingerprint,
            line.boundary,
            samples=0,
            precision=str(dtype).removeprefix("torch."),
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
        """Computes and stores what is missing; shards that are damaged are computed again.

        It may be killed at any instant, and called again: what was stored stays. Of several processes, each with its
        own rank, every one computes its own part of the samples.

        Args:
            dataset: with a length and samples by index, always the same ones unless there are several views.
            batch_size: how many samples go through the model at a time.
            num_workers: how many processes read samples.
            rank: which of the processes that fill the cache this one is.
            ranks: how many there are.
            verify: whether every byte that is there is read and compared with its digest before; if not, only headers
                and sizes are looked at.
            progress: whether to show a bar, on a terminal.

        Raises:
            CacheError: the dataset has no length, its samples are random, or they cannot be stored.
            CacheBudgetError: it would be larger than the budget; nothing was written.
            CacheSpaceError: the disk has no room.
            StaleCacheError: what is below the line is not what it was.
        """
        self._watch.check(bytes_too=True)
        keys, samples = filling.keys_of(dataset, self._key), Samples.of(dataset, self._split)
        packing = samples.packing
        wanted = replace(self._said, samples=len(keys), rest=packing.rest, structure=packing.structure)
        store = agreement.planned(self.directory, wanted)
        run = filling.Filling(store, keys, rank=rank, ranks=ranks, verify=verify, progress=progress)
        self._check_samples(samples, keys, store)

        def batches(indices: list[int]) -> Iterator[tuple[Sequence[int], filling.Columns]]:
            for some, packed in samples.batches(indices, batch_size, num_workers):
                yield some, self._columns(packed, wanted)

        run.run(self._budget, batches)

    def dataset(self, dataset: Dataset[Any]) -> CachedDataset:
        """The dataset with features in place of what goes into the model.

        Args:
            dataset: the one that the cache was filled with. Some samples of it are read, to see that it is.

        Raises:
            CacheError: not all of its samples are stored, or it is another dataset.
            DamagedCacheError: what was stored is damaged.
            StaleCacheError: what is below the line is not what it was.
        """
        self._watch.check(bytes_too=True)
        keys = filling.keys_of(dataset, self._key)
        store = agreement.complete(self.directory, self._said, keys)
        manifest = store.manifest
        if manifest.views == 1:
            samples = Samples(dataset, Packing(self._split, manifest.rest, manifest.structure))
            agreement.check_sources(store, keys, samples.sources(agreement.probes(len(keys))))
        rows = Rows([store.places(keys, view) for view in range(manifest.views)])
        return CachedDataset(store.reader(), rows, manifest, self._watch)

    def verify(self) -> list[Damage]:
        """The shards that are not what was written; `fill` computes them again. Every byte is read."""
        return Store.opened(self.directory).verify()

    def __repr__(self) -> str:
        return agreement.state_of(self.directory, self._said)

    def _check_samples(self, samples: Samples, keys: list[Key], store: Store) -> None:
        some = agreement.probes(len(keys))
        sources = samples.sources(some)
        agreement.check_random(sources, samples.sources(some), store.manifest.views)
        if store.manifest.views == 1:
            agreement.check_sources(store, keys, sources)

    def _columns(self, packed: Packed, manifest: Manifest) -> dict[str, memoryview]:
        """The columns of some samples, computed."""
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
