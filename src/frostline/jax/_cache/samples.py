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
from frostline.jax._arrays import described
from frostline.jax._cache.codec import Array, raw

Split = Callable[[Any], tuple[Any, Any]]
"""Sample → what goes into the model (one thing, or a tuple of them), and the rest of it."""

_SPLIT = "FeatureCache(..., split=lambda sample: (inputs, rest))"


class Source(Protocol):
    """Samples by index: what a dataset of PyTorch or Grain is, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@final
@dataclass(frozen=True)
class Packed:
    """Some samples, one after another.

    Attributes:
        inputs: what goes into the model.
        columns: the rest of them, and the digests of what they were.
    """

    inputs: tuple[Any, ...]
    columns: dict[str, Array]

    @property
    def source(self) -> bytes:
        """The digests."""
        return self.columns[SOURCE.name].tobytes()


@final
@dataclass(frozen=True)
class Samples:
    """A dataset, and how rows are made of it.

    Attributes:
        source: samples by index.
        split: says what of a sample goes into the model.
        rest: the columns of what does not.
        structure: how that is nested.
    """

    source: Source
    split: Split
    rest: tuple[Column, ...]
    structure: Structure

    @classmethod
    def of(cls, source: Source, split: Split) -> Samples:
        """The samples of a dataset, all of them like the first one.

        Raises:
            CacheError: it has something that no array can hold.
        """
        others = _parts(split, source[0])[1]
        structure = structure_of(others)
        arrays = enumerate(map(_rest, range(1 << 30), leaves_of(others, structure)))
        rest = tuple(Column(f"rest.{number}", str(array.dtype), array.shape) for number, array in arrays)
        return cls(source, split, rest, structure)

    def each(self, indices: Sequence[int]) -> dict[int, Packed]:
        """Some samples by index, each by itself.

        Raises:
            CacheError: a sample is not like the first one.
        """
        return {index: self._packed([index]) for index in indices}

    def batches(self, indices: Sequence[int], size: int) -> Iterator[tuple[Sequence[int], Packed]]:
        """Samples in rows, some at a time, with their indices.

        Raises:
            CacheError: a sample is not like the first one.
        """
        for begin in range(0, len(indices), size):
            some = indices[begin : begin + size]
            yield some, self._packed(some)

    def _packed(self, indices: Sequence[int]) -> Packed:
        made = [self._arrays(self.source[index]) for index in indices]
        digests = [bytes.fromhex(digest(map(raw, (*jax.tree.leaves(inputs), *rest)))) for inputs, rest in made]
        columns = {column.name: np.stack([rest[n] for _, rest in made]) for n, column in enumerate(self.rest)}
        columns[SOURCE.name] = np.frombuffer(b"".join(digests), np.uint8)
        return Packed(_stacked([inputs for inputs, _ in made]), columns)

    def _arrays(self, sample: Any) -> tuple[tuple[Any, ...], list[Array]]:
        inputs, rest = _parts(self.split, sample)
        try:
            leaves = leaves_of(rest, self.structure)
        except ValueError as error:
            problem, fix = f"has another rest than the first one: {error}.", f"Leave out what differs: {_SPLIT}"
            raise CacheError("A sample of the dataset", problem, (), fix) from None
        arrays = list(map(_rest, range(len(leaves)), leaves))
        for number, (array, column) in enumerate(zip(arrays, self.rest, strict=True)):
            if (str(array.dtype), array.shape) != (column.dtype, column.shape):
                problem = f"is {_kind(array)}, and in the first sample it was {column.dtype}{list(column.shape)}."
                fix = f"Give it one size and dtype, or leave it out: {_SPLIT}"
                raise CacheError(f"Part {number} of the rest of a sample", problem, (), fix)
        return jax.tree.map(lambda leaf: _array(leaf, "What goes into the model"), inputs), arrays


def _parts(split: Split, sample: Any) -> tuple[tuple[Any, ...], Any]:
    inputs, rest = split(sample)
    return inputs if isinstance(inputs, tuple) else (inputs,), rest


def _rest(number: int, leaf: Any) -> Array:
    return _array(leaf, f"Part {number} of the rest of a sample")


def _array(leaf: Any, what: str) -> Array:
    array = np.asarray(leaf)
    if str(array.dtype) not in ITEMSIZES:
        problem = f"is {described(leaf)}, and a cache holds numbers and arrays."
        raise CacheError(what, problem, (), f"Say what is what: {_SPLIT}")
    return array


def _stacked(samples: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    kinds = [[_kind(leaf) for leaf in jax.tree.leaves(sample)] for sample in samples]
    other = next((kind for kind in kinds if kind != kinds[0]), None)
    if other is not None:
        problem = f"is {', '.join(kinds[0])} in one sample and {', '.join(other)} in another."
        fix = "Bring all samples to one size in the dataset: pad, resize or crop them."
        raise CacheError("What goes into the model", problem, (), fix)
    stacked: tuple[Any, ...] = jax.tree.map(lambda *leaves: np.stack(leaves), *samples)
    return stacked


def _kind(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"
