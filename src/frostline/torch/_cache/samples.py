"""Samples of a dataset on their way into a feature cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from frostline._core.errors import CacheError
from frostline._core.fingerprint import digest
from frostline.features.columns import SOURCE, Column
from frostline.features.precision import ITEMSIZES
from frostline.features.structure import Structure, leaves_of, structure_of
from frostline.torch._cache.codec import raw
from frostline.torch._tensors import dtype_name

Split = Callable[[Any], tuple[Any, Any]]
"""Sample → what goes into the model (one thing, a tuple of them, or a dict of them by name), and the rest of it."""

_INPUT, _REST = "What goes into the model", "Part {} of the rest of a sample"
_SPLIT = "FeatureCache(..., split=lambda sample: (inputs, rest))"


@final
@dataclass(frozen=True)
class Packed:
    """Some samples, one after another.

    Attributes:
        args: what goes into the model.
        named: what goes into it by name.
        columns: the rest of them, and the digests of what they were.
    """

    args: tuple[Tensor, ...]
    named: dict[str, Tensor]
    columns: dict[str, Tensor]


@final
@dataclass(frozen=True)
class Packing:
    """Makes rows of samples; it also works in the workers of a DataLoader.

    Attributes:
        split: says what of a sample goes into the model.
        rest: the columns of what does not.
        structure: how that is nested.
    """

    split: Split
    rest: tuple[Column, ...]
    structure: Structure

    @classmethod
    def of(cls, split: Split, sample: Any) -> Packing:
        """The packing for samples like this one.

        Raises:
            CacheError: it has something that no array can hold.
        """
        _, _, rest = _parts(split, sample)
        structure = structure_of(rest)
        tensors = [_tensor(leaf, _REST.format(n)) for n, leaf in enumerate(leaves_of(rest, structure))]
        columns = (
            Column(f"rest.{n}", dtype_name(tensor.dtype), tuple(tensor.shape)) for n, tensor in enumerate(tensors)
        )
        return cls(split, tuple(columns), structure)

    def __call__(self, samples: Sequence[Any]) -> Packed | CacheError:
        """The rows of some samples, or what is wrong with one: a worker could not raise it as what it is."""
        try:
            return self._packed(samples)
        except CacheError as error:
            return error

    def _packed(self, samples: Sequence[Any]) -> Packed:
        made = [self._tensors(sample) for sample in samples]
        digests = b"".join(
            bytes.fromhex(digest(map(raw, (*args, *named.values(), *rest)))) for args, named, rest in made
        )
        columns = {
            column.name: torch.stack([row[2][number] for row in made]) for number, column in enumerate(self.rest)
        }
        columns[SOURCE.name] = torch.frombuffer(bytearray(digests), dtype=torch.uint8)
        args, named, _ = made[0]
        if any((len(row[0]), list(row[1])) != (len(args), list(named)) for row in made):
            problem = "is of another number in one sample than in another, or has other names."
            raise CacheError(_INPUT, problem, (), f"Give always the same: {_SPLIT}")
        stacked = tuple(_stacked([row[0][number] for row in made]) for number in range(len(args)))
        return Packed(stacked, {name: _stacked([row[1][name] for row in made]) for name in named}, columns)

    def _tensors(self, sample: Any) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
        """What goes into the model, what goes into it by name, and the rest."""
        args, named, rest = _parts(self.split, sample)
        try:
            leaves = leaves_of(rest, self.structure)
        except ValueError as error:
            problem = f"has another rest than the first one: {error}."
            raise CacheError("A sample of the dataset", problem, (), f"Leave out what differs: {_SPLIT}") from None
        tensors = [_tensor(leaf, _REST.format(number)) for number, leaf in enumerate(leaves)]
        for number, (tensor, column) in enumerate(zip(tensors, self.rest, strict=True)):
            if (dtype_name(tensor.dtype), tuple(tensor.shape)) != (column.dtype, column.shape):
                problem = f"is {_kind(tensor)}, and in the first sample it was {column.dtype}{list(column.shape)}."
                fix = f"Give it one size and dtype, or leave it out: {_SPLIT}"
                raise CacheError(_REST.format(number), problem, (), fix)
        inputs = [_tensor(part, _INPUT) for part in args]
        return inputs, {name: _tensor(part, _INPUT) for name, part in named.items()}, tensors


@final
@dataclass(frozen=True)
class Samples:
    """A dataset, and how rows are made of it.

    Attributes:
        dataset: samples by index.
        packing: makes rows of them.
    """

    dataset: Dataset[Any]
    packing: Packing

    @classmethod
    def of(cls, dataset: Dataset[Any], split: Split) -> Samples:
        """The samples of a dataset, all of them like the first one.

        Raises:
            CacheError: it has something that no array can hold.
        """
        return cls(dataset, Packing.of(split, dataset[0]))

    def sources(self, indices: Sequence[int]) -> dict[int, bytes]:
        """The digests of some samples, by index.

        Raises:
            CacheError: a sample is not like the first one.
        """
        rows = {index: _made(self.packing([self.dataset[index]])) for index in indices}
        return {index: bytes(raw(packed.columns[SOURCE.name])) for index, packed in rows.items()}

    def batches(self, indices: Sequence[int], size: int, workers: int) -> Iterator[tuple[Sequence[int], Packed]]:
        """Samples in rows, some at a time, with their indices.

        Raises:
            CacheError: a sample is not like the first one.
        """
        some = Subset(self.dataset, indices)
        loader = DataLoader(some, batch_size=size, num_workers=workers, collate_fn=self.packing)
        for number, packed in enumerate(loader):
            yield indices[number * size : (number + 1) * size], _made(packed)


def _made(packed: Packed | CacheError) -> Packed:
    if isinstance(packed, CacheError):
        raise packed
    return packed


def _parts(split: Split, sample: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """What goes into the model, what goes into it by name, and the rest."""
    inputs, rest = split(sample)
    if isinstance(inputs, dict):
        return (), inputs, rest
    return inputs if isinstance(inputs, tuple) else (inputs,), {}, rest


def _tensor(leaf: Any, what: str) -> Tensor:
    try:
        # PyTorch warns of arrays that cannot be written to, and refuses those that run backwards.
        tensor = torch.as_tensor(np.require(leaf, requirements=("C", "W")) if isinstance(leaf, np.ndarray) else leaf)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or dtype_name(tensor.dtype) not in ITEMSIZES:
        problem = f"is {_kind(leaf)}, and a cache holds numbers and arrays."
        raise CacheError(what, problem, (), f"Say what is what: {_SPLIT}")
    return tensor.detach().cpu()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    other = next((tensor for tensor in tensors if tensor.shape != tensors[0].shape), None)
    if other is not None:
        problem = f"is {_kind(tensors[0])} in one sample and {_kind(other)} in another."
        fix = "Bring all samples to one size in the dataset: pad, resize or crop them."
        raise CacheError(_INPUT, problem, (), fix)
    return torch.stack(list(tensors))


def _kind(value: object) -> str:
    return f"{dtype_name(value.dtype)}{list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
