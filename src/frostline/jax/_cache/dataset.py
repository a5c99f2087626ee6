"""A dataset that reads features instead of computing them. It does not need JAX to run."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, final

import numpy as np

from frostline.features.manifest import Manifest
from frostline.features.reading import Place, Reader
from frostline.features.structure import Structure, joined
from frostline.jax._cache.codec import Array, decoded, of_bytes


@final
class CachedDataset:
    """A dataset with features in place of the model's inputs; made by `FeatureCache.dataset`.

    A sample is ``(features, *rest)``, where features is a tuple of NumPy arrays; a batch is the same with samples in
    the first dimension. It can be pickled and sent to workers, and a loader can make batches of it.

    With several views of each sample, one is drawn for each read; after ``set_epoch(e)`` it is view ``e % views`` for
    all. Running workers keep the epoch with which they began.
    """

    def __init__(self, reader: Reader, views: Sequence[Sequence[Place]], manifest: Manifest) -> None:
        # Arrays are small when they are sent to workers.
        self._shards = [array("q", (shard for shard, _ in places)) for places in views]
        self._rows = [array("q", (row for _, row in places)) for places in views]
        self._reader, self._manifest = reader, manifest
        self._epoch = -1
        self._random = np.random.default_rng()

    def set_epoch(self, epoch: int) -> None:
        """Reads view ``epoch % views`` of each sample from now on; epochs count from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._shards[0])

    def __getitem__(self, index: int) -> Any:
        (sample,) = self.__getitems__([index])
        return sample

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples with these indices, read together; a PyTorch DataLoader calls this.

        Raises:
            IndexError: there is no such sample.
            DamagedCacheError: a row differs from the stored one.
        """
        values, rest = self._read(indices)
        rows = ((tuple(each[row] for each in values), [each[row] for each in rest]) for row in range(len(indices)))
        return [_sample(features, others, self._manifest.structure) for features, others in rows]

    def batch(self, indices: Sequence[int]) -> Any:
        """The samples with these indices as one batch: ``(features, *rest)``.

        Raises:
            IndexError: there is no such sample.
            DamagedCacheError: a row differs from the stored one.
        """
        return _sample(*self._read(indices), _of_arrays(self._manifest.structure))

    def _read(self, indices: Sequence[int]) -> tuple[tuple[Array, ...], list[Array]]:
        samples, rows, manifest = len(self), len(indices), self._manifest
        for index in indices:
            if not -samples <= index < samples:
                raise IndexError(f"index {index} of {samples} samples")
        if manifest.views == 1:
            views = [0] * rows
        elif self._epoch >= 0:
            views = [self._epoch % manifest.views] * rows
        else:
            views = self._random.integers(manifest.views, size=rows).tolist()
        places = [(self._shards[view][i], self._rows[view][i]) for i, view in zip(indices, views, strict=True)]
        rooms = self._reader.rows(places, manifest.given)
        values = tuple(decoded(value, number, rooms, rows) for number, value in enumerate(manifest.values))
        return values, [of_bytes(rooms[each.name], each.dtype, (rows, *each.shape)) for each in manifest.rest]


def _sample(features: tuple[Array, ...], rest: list[Array], structure: Structure) -> Any:
    others = joined(iter(rest), structure)
    return (features, *others) if isinstance(others, tuple) else (features, others)


def _of_arrays(structure: Structure) -> Structure:
    """The structure of a batch, in which every number is an array."""
    match structure:
        case ["dict", keys, *parts]:
            return ["dict", keys, *map(_of_arrays, parts)]
        case [kind, *parts]:
            return [kind, *map(_of_arrays, parts)]
    return "array"
