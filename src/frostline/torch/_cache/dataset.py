"""A dataset that reads features instead of computing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from frostline.features.manifest import Manifest
from frostline.features.reading import Place, Reader
from frostline.features.structure import joined
from frostline.torch._cache.codec import decoded, of_bytes
from frostline.torch._cache.watch import LineWatch, stale

try:
    from torch.utils.data._utils.collate import default_collate_fn_map as _COLLATING
except ImportError:
    _COLLATING = {}


class Features(tuple[Tensor, ...]):
    """The values that cross the line for one sample; it refers to the batch that contains it."""

    batch: tuple[Tensor, ...]
    row: int

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)


@final
class CachedDataset(Dataset[Any]):
    """The samples of a dataset with features in place of the model's inputs; made by `FeatureCache.dataset`.

    A sample is ``(features, *rest)``, where features is a tuple. A DataLoader makes batches of it, and reads each batch
    at once. The copies in worker processes have no model.

    With several views of each sample, each read draws one; after ``set_epoch(e)`` all reads use view ``e % views``.

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

    def __init__(self, reader: Reader, places: Sequence[Sequence[Place]], manifest: Manifest, watch: LineWatch) -> None:
        self._reader, self._manifest = reader, manifest
        # For each view and index, the shard and the row in it, in a small form, because it is sent to workers.
        self._places = torch.tensor(places)
        self._watch: LineWatch | None = watch
        self._name, self._thawed = watch.name, watch.thawed
        # In shared memory, because workers that stay alive hold a copy of the dataset.
        self._epoch = torch.tensor(-1).share_memory_()

    def __getstate__(self) -> dict[str, Any]:
        # A worker has no model to check; it is notified through the memory that it shares.
        return {**self.__dict__, "_watch": None}

    def set_epoch(self, epoch: int) -> None:
        """Reads view ``epoch % views`` of each sample from now on, also in workers that are running.

        Args:
            epoch: the number of the next epoch, starting at 0.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        # A sampler asks at the beginning of each epoch, in the process that has the model.
        self._check()
        return self._places.shape[1]

    def __getitem__(self, index: int) -> Any:
        samples = self._places.shape[1]
        if not -samples <= index < samples:
            raise IndexError(f"index {index} of {samples} samples")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Reads the samples with these indices together, as a DataLoader does."""
        self._check()
        manifest, rows = self._manifest, len(indices)
        places = [(shard, row) for shard, row in self._places[self._views(rows), indices].tolist()]
        rooms = self._reader.rows(places, manifest.given)
        batch = tuple(decoded(value, number, rooms, rows) for number, value in enumerate(manifest.values))
        rest = [of_bytes(rooms[each.name], each.dtype, (rows, *each.shape)) for each in manifest.rest]
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
    """Returns the batch that contains the samples if they are all of it, in order; otherwise stacks them."""
    batch = samples[0].batch
    if len(samples) == len(batch[0]) and all(s.batch is batch and s.row == row for row, s in enumerate(samples)):
        return list(batch)
    return [torch.stack(parts) for parts in zip(*samples, strict=True)]


# Where PyTorch has no such table, it stacks the values in the tuples; this costs a copy.
_COLLATING[Features] = collated
