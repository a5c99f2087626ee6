"""A dataset that reads features instead of computing them; nothing in it needs JAX to be running."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, final

import numpy as np

from frostline.features.manifest import Manifest
from frostline.features.reading import Place, Reader
from frostline.features.structure import Structure, joined
from frostline.jax._cache.codec import Array, decoded, rest_of


@final
class CachedSource:
    """A dataset with what crosses the line in place of what goes into the model.

    Made by `FeatureCache.dataset`. A sample is ``(features, *rest)``, where features is a tuple of NumPy arrays; a
    batch is the same with samples in the first dimension. It can be pickled, and handed to workers and to what makes
    batches of a dataset.

    With several views of each sample, one is drawn for each read; after ``set_epoch(e)`` it is view ``e % views`` for
    all. Workers that run keep the epoch that they began with.
    """

    def __init__(self, reader: Reader, views: Sequence[Sequence[Place]], manifest: Manifest) -> None:
        # Small, as it is sent to workers.
        self._shards = [array("q", (shard for shard, _ in places)) for places in views]
        self._rows = [array("q", (row for _, row in places)) for places in views]
        self._reader, self._manifest = reader, manifest
        self._epoch = -1
        self._random = np.random.default_rng()

    def set_epoch(self, epoch: int) -> None:
        """Reads view ``epoch % views`` of each sample from now on.

        Args:
            epoch: which one begins, from 0.
        """
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._shards[0])

    def __getitem__(self, index: int) -> Any:
        (sample,) = self.__getitems__([index])
        return sample

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The samples with these indices, read together: what a DataLoader of PyTorch calls.

        Raises:
            IndexError: there is no such sample.
            DamagedCacheError: a row is not what was stored.
        """
        values, rest = self._read(indices)
        structure = self._manifest.structure
        return [
            _sample(tuple(value[row] for value in values), [leaf[row] for leaf in rest], structure)
            for row in range(len(indices))
        ]

    def batch(self, indices: Sequence[int]) -> Any:
        """The samples with these indices as one batch: ``(features, *rest)``.

        Raises:
            IndexError: there is no such sample.
            DamagedCacheError: a row is not what was stored.
        """
        return _sample(*self._read(indices), _of_arrays(self._manifest.structure))

    def _read(self, indices: Sequence[int]) -> tuple[tuple[Array, ...], list[Array]]:
        samples, rows, manifest = len(self), len(indices), self._manifest
        for index in indices:
            if not -samples <= index < samples:
                raise IndexError(f"index {index} of {samples} samples")
        places = [
            (self._shards[view][i], self._rows[view][i]) for i, view in zip(indices, self._views(rows), strict=True)
        ]
        rooms = self._reader.rows(places, manifest.given)
        values = tuple(decoded(value, number, rooms, rows) for number, value in enumerate(manifest.values))
        return values, [rest_of(column, rooms, rows) for column in manifest.rest]

    def _views(self, rows: int) -> list[int]:
        views = self._manifest.views
        if views == 1:
            return [0] * rows
        return [self._epoch % views] * rows if self._epoch >= 0 else self._random.integers(views, size=rows).tolist()


def _sample(features: tuple[Array, ...], rest: list[Array], structure: Structure) -> Any:
    others = joined(iter(rest), structure)
    return (features, *others) if isinstance(others, tuple) else (features, others)


def _of_arrays(structure: Structure) -> Structure:
    """The structure of a batch: of numbers there is an array."""
    match structure:
        case ["dict", keys, *parts]:
            return ["dict", keys, *map(_of_arrays, parts)]
        case [kind, *parts]:
            return [kind, *map(_of_arrays, parts)]
    return "array"
