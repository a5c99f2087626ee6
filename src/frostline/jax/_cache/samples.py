"""Samples of a dataset on their way into a feature cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import jax
import numpy as np

from frostline._core.errors import CacheError
from frostline._core.fingerprint import digest
from frostline.features.columns import SOURCE, Column
from frostline.features.precision import ITEMSIZES
from frostline.features.structure import Structure, leaves_of, structure_of
from frostline.jax._arrays import bytes_of, described
from frostline.jax._cache.codec import Array

Split = Callable[[Any], tuple[Any, Any]]
"""Sample → the inputs of the model (one, or a tuple of them), and the rest of the sample."""

_INPUT, _REST = "An input of the model", "Part {} of the rest of a sample"
_SPLIT = "FeatureCache(..., split=lambda sample: (inputs, rest))"


class Dataset(Protocol):
    """Samples by index, such as a list or a dataset of PyTorch or Grain."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@final
@dataclass(frozen=True)
class Packed:
    """Some samples, one after another.

    Attributes:
        inputs: the inputs of the model.
        columns: the rest of them, and the digests of all of them.
    """

    inputs: tuple[Any, ...]
    columns: dict[str, Array]


@final
@dataclass(frozen=True)
class Samples:
    """A dataset, and how rows are made of its samples.

    Attributes:
        dataset: samples by index.
        split: divides a sample into the inputs of the model and the rest.
        rest: the columns of the rest.
        structure: how the rest is nested.
    """

    dataset: Dataset
    split: Split
    rest: tuple[Column, ...]
    structure: Structure

    @classmethod
    def of(cls, dataset: Dataset, split: Split) -> Samples:
        """The samples of a dataset, all of them like the first one.

        Raises:
            CacheError: it has something that no array can hold.
        """
        _, others = split(dataset[0])
        structure = structure_of(others)
        arrays = [_array(leaf, _REST.format(number)) for number, leaf in enumerate(leaves_of(others, structure))]
        rest = (Column(f"rest.{number}", str(each.dtype), each.shape) for number, each in enumerate(arrays))
        return cls(dataset, split, tuple(rest), structure)

    def each(self, indices: Sequence[int]) -> dict[int, Packed]:
        """Some samples by index, each by itself.

        Raises:
            CacheError: a sample is not like the first one.
        """
        return {index: self._packed([index]) for index in indices}

    def batches(self, indices: Sequence[int], size: int) -> Iterator[tuple[Sequence[int], Packed]]:
        """Yields samples in rows, some at a time, with their indices.

        Raises:
            CacheError: a sample is not like the first one.
        """
        for begin in range(0, len(indices), size):
            some = indices[begin : begin + size]
            yield some, self._packed(some)

    def _packed(self, indices: Sequence[int]) -> Packed:
        made = [self._arrays(self.dataset[index]) for index in indices]
        digests = [bytes.fromhex(digest(map(bytes_of, (*jax.tree.leaves(inputs), *rest)))) for inputs, rest in made]
        columns = {column.name: np.stack([rest[n] for _, rest in made]) for n, column in enumerate(self.rest)}
        columns[SOURCE.name] = np.frombuffer(b"".join(digests), np.uint8)
        kinds = [", ".join(map(_kind, jax.tree.leaves(inputs))) for inputs, _ in made]
        if other := next((kind for kind in kinds if kind != kinds[0]), None):
            problem = f"is {kinds[0]} in one sample and {other} in another."
            fix = "Bring all samples to one size in the dataset: pad, resize or crop them."
            raise CacheError(_INPUT, problem, (), fix)
        stacked: tuple[Any, ...] = jax.tree.map(lambda *leaves: np.stack(leaves), *(inputs for inputs, _ in made))
        return Packed(stacked, columns)

    def _arrays(self, sample: Any) -> tuple[tuple[Any, ...], list[Array]]:
        """The inputs of the model, and the rest."""
        inputs, rest = self.split(sample)
        try:
            leaves = leaves_of(rest, self.structure)
        except ValueError as error:
            problem, fix = f"has another rest than the first one: {error}.", f"Leave out what differs: {_SPLIT}"
            raise CacheError("A sample of the dataset", problem, (), fix) from None
        arrays = [_array(leaf, _REST.format(number)) for number, leaf in enumerate(leaves)]
        for number, (array, column) in enumerate(zip(arrays, self.rest, strict=True)):
            if (str(array.dtype), array.shape) != (column.dtype, column.shape):
                problem = f"is {_kind(array)}, and in the first sample it was {column.dtype}{list(column.shape)}."
                fix = f"Give it one size and dtype, or leave it out: {_SPLIT}"
                raise CacheError(_REST.format(number), problem, (), fix)
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        return jax.tree.map(lambda leaf: _array(leaf, _INPUT), given), arrays


def _array(leaf: Any, subject: str) -> Array:
    array = np.asarray(leaf)
    if str(array.dtype) not in ITEMSIZES:
        problem = f"is {described(leaf)}, but a cache holds numbers and arrays."
        raise CacheError(subject, problem, (), f"Divide a sample yourself: {_SPLIT}")
    return array


def _kind(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
