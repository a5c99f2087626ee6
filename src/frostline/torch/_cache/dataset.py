"""A dataset that reads features instead of computing them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from frostline.features.manifest import Manifest
from frostline.features.reading import Place, Reader
from frostline.features.structure import joined
from frostline.torch._cache.codec import decoded, rest_of
from frostline.torch._cache.watch import Watch, stale

try:
    from torch.utils.data._utils.collate import default_collate_fn_map as _COLLATING
except ImportError:
    _COLLATING = {}


class Features(tuple[Tensor, ...]):
    """What crosses the line for one sample; it knows the batch that it was read with, so that none is stacked again."""

    batch: tuple[Tensor, ...]
    row: int

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


@final
class Rows:
    """Where the rows of each view are, for every index; small, as it is sent to workers.

    Args:
        views: the places of all indices, for each view.
    """

    def __init__(self, views: Sequence[Sequence[Place]]) -> None:
        self._shards = [array("q", (shard for shard, _ in places)) for places in views]
        self._rows = [array("q", (row for _, row in places)) for places in views]

    def __len__(self) -> int:
        return len(self._rows[0])

    def places(self, indices: Sequence[int], views: Sequence[int]) -> list[Place]:
        """Where the rows of some indices are, each in a view of its own."""
        shards, rows = self._shards, self._rows
        return [(shards[view][index], rows[view][index]) for index, view in zip(indices, views, strict=True)]


@final
class CachedDataset(Dataset[Any]):
    """The samples of a dataset with what crosses the line in place of what goes into the model.

    Made by `FeatureCache.dataset`. A sample is ``(features, *rest)``, where features is a tuple; a DataLoader makes
    batches of it, and reads each batch in one go. In worker processes it holds no model.

    With several views of each sample, one is drawn for each read; after ``set_epoch(e)`` it is view ``e % views`` for
    all.

    Example:
        >>> import tempfile
        >>> class Noisy(torch.utils.data.Dataset):
        ...     def __len__(self):
        ...         return 8
        ...     def __getitem__(self, index):
        ...         return torch.randn(4), index % 2
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> handle = freeze(model, "0")
        >>> cache = FeatureCache(tempfile.mkdtemp(), frostline(model, torch.randn(2, 4)), views=3)
        >>> cache.fill(Noisy())
        >>> data = cache.dataset(Noisy())
        >>> for epoch in range(3):
        ...     data.set_epoch(epoch)
        ...     for (features,), label in torch.utils.data.DataLoader(data, batch_size=4, shuffle=True):
        ...         pass
        >>> features.shape, label.shape
        (torch.Size([4, 8]), torch.Size([4]))
    """

    def __init__(self, reader: Reader, rows: Rows, manifest: Manifest, watch: Watch) -> None:
        self._reader, self._rows, self._manifest = reader, rows, manifest
        self._watch: Watch | None = watch
        self._name, self._thawed = watch.name, watch.thawed
        # In shared memory, because workers that stay alive hold a copy of the dataset.
        self._epoch = torch.tensor(-1).share_memory_()

    def __getstate__(self) -> dict[str, Any]:
        # A worker has no model to look at, and is told through the memory that it shares.
        return {**self.__dict__, "_watch": None}

    def set_epoch(self, epoch: int) -> None:
        """Reads view ``epoch % views`` of each sample from now on, also in workers that are running.

        Args:
            epoch: which one begins, from 0.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        # A sampler asks at the beginning of each epoch, in the process that has the model.
        self._check()
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        if not -len(self._rows) <= index < len(self._rows):
            raise IndexError(f"index {index} of {len(self._rows)} samples")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples with these indices, read together: what a DataLoader calls."""
        self._check()
        manifest, rows = self._manifest, len(indices)
        rooms = self._reader.rows(self._rows.places(indices, self._views(rows)), manifest.given)
        batch = tuple(decoded(value, number, rooms, rows) for number, value in enumerate(manifest.values))
        rest = [rest_of(column, rooms, rows) for column in manifest.rest]
        return [self._sample(batch, rest, row) for row in range(rows)]

    def _sample(self, batch: tuple[Tensor, ...], rest: list[Tensor], row: int) -> Any:
        features = Features(values[row] for values in batch)
        features.batch, features.row = batch, row
        others = joined(iter([leaf[row] for leaf in rest]), self._manifest.structure)
        return (features, *others) if isinstance(others, tuple) else (features, others)

    def _views(self, rows: int) -> list[int]:
        views, epoch = self._manifest.views, int(self._epoch)
        if views == 1:
            return [0] * rows
        return [epoch % views] * rows if epoch >= 0 else torch.randint(views, (rows,)).tolist()

    def _check(self) -> None:
        # A worker that was forked has a model too, but not the one that is trained.
        if self._watch is not None and get_worker_info() is None:
            self._watch.check()
        elif self._thawed:
            raise stale(self._name)


def collated(samples: Sequence[Features], *, collate_fn_map: object = None) -> list[Tensor]:
    """The batch of some samples: the one that they were read with, if they are all of it and in order."""
    batch = samples[0].batch
    if len(samples) == len(batch[0]) and all(s.batch is batch and s.row == row for row, s in enumerate(samples)):
        return list(batch)
    return [torch.stack(parts) for parts in zip(*samples, strict=True)]


# Where PyTorch has no such table, it stacks what it finds in the tuples, and all that is lost is a copy.
_COLLATING[Features] = collated
