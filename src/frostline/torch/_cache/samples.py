"""Converting the samples of a dataset into rows of a feature cache."""

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
from frostline.torch._tensors import described, dtype_name

Split = Callable[[Any], tuple[Any, Any]]
"""Sample → the inputs of the model (one, a tuple of them, or a dict of them by name), and the rest of the sample."""

_INPUT, _REST = "An input of the model", "Part {} of the rest of a sample"
_SPLIT = "FeatureCache(..., split=lambda sample: (inputs, rest))"


@final
@dataclass(frozen=True)
class Packed:
    """Several samples, one after another.

    Attributes:
        args: the inputs of the model.
        named: its keyword inputs.
        columns: the rest of the samples, and the digests of the samples.
    """

    args: tuple[Tensor, ...]
    named: dict[str, Tensor]
    columns: dict[str, Tensor]


@final
@dataclass(frozen=True)
class Samples:
    """A dataset with the conversion of its samples to rows; it also works in the workers of a DataLoader.

    Attributes:
        dataset: the dataset.
        split: divides a sample into the inputs of the model and the rest.
        rest: the columns of the rest.
        structure: the nesting of the rest.
    """

    dataset: Dataset[Any]
    split: Split
    rest: tuple[Column, ...]
    structure: Structure

    @classmethod
    def of(cls, dataset: Dataset[Any], split: Split) -> Samples:
        """Returns the samples of a dataset; all must have the structure of the first one.

        Raises:
            CacheError: a part of a sample cannot be stored as an array.
        """
        _, _, rest = _parts(split, dataset[0])
        structure = structure_of(rest)
        tensors = [_tensor(leaf, _REST.format(n)) for n, leaf in enumerate(leaves_of(rest, structure))]
        columns = [Column(f"rest.{n}", dtype_name(t.dtype), tuple(t.shape)) for n, t in enumerate(tensors)]
        return cls(dataset, split, tuple(columns), structure)

    def sources(self, indices: Sequence[int]) -> dict[int, bytes]:
        """Returns the digests of some samples, by index.

        Raises:
            CacheError: a sample is not like the first one.
        """
        return {index: bytes(raw(self._packed([self.dataset[index]]).columns[SOURCE.name])) for index in indices}

    def batches(self, indices: Sequence[int], size: int, workers: int) -> Iterator[tuple[Sequence[int], Packed]]:
        """Yields samples in rows, some at a time, with their indices.

        Raises:
            CacheError: a sample is not like the first one.
        """
        some = Subset(self.dataset, indices)
        loader = DataLoader(some, batch_size=size, num_workers=workers, collate_fn=self._packed_or_error)
        for number, packed in enumerate(loader):
            if isinstance(packed, CacheError):
                raise packed
            yield indices[number * size : (number + 1) * size], packed

    def _packed_or_error(self, samples: Sequence[Any]) -> Packed | CacheError:
        # A DataLoader changes the class of an error from a worker.
        try:
            return self._packed(samples)
        except CacheError as error:
            return error

    def _packed(self, samples: Sequence[Any]) -> Packed:
        made = [self._tensors(sample) for sample in samples]
        digests = [digest(map(raw, (*args, *named.values(), *rest))) for args, named, rest in made]
        columns = {column.name: torch.stack([row[2][n] for row in made]) for n, column in enumerate(self.rest)}
        columns[SOURCE.name] = torch.frombuffer(bytearray.fromhex("".join(digests)), dtype=torch.uint8)
        args, named, _ = made[0]
        if any((len(row[0]), list(row[1])) != (len(args), list(named)) for row in made):
            problem = "have another number or other names in one sample than in another."
            raise CacheError("The inputs of the model", problem, (), f"Give always the same: {_SPLIT}")
        stacked = tuple(_stacked([row[0][number] for row in made]) for number in range(len(args)))
        return Packed(stacked, {name: _stacked([row[1][name] for row in made]) for name in named}, columns)

    def _tensors(self, sample: Any) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
        """Returns the positional inputs of the model, its keyword inputs, and the rest."""
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


def _parts(split: Split, sample: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    inputs, rest = split(sample)
    if isinstance(inputs, dict):
        return (), inputs, rest
    return inputs if isinstance(inputs, tuple) else (inputs,), {}, rest


def _tensor(leaf: Any, what: str) -> Tensor:
    try:
        # PyTorch warns about read-only arrays, and refuses arrays with negative strides.
        tensor = torch.as_tensor(np.require(leaf, requirements=("C", "W")) if isinstance(leaf, np.ndarray) else leaf)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or dtype_name(tensor.dtype) not in ITEMSIZES:
        problem = f"is {_kind(leaf)}, and a cache holds numbers and arrays."
        raise CacheError(what, problem, (), f"Divide the sample: {_SPLIT}")
    return tensor.detach().cpu()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    other = next((tensor for tensor in tensors if tensor.shape != tensors[0].shape), None)
    if other is not None:
        problem = f"is {_kind(tensors[0])} in one sample and {_kind(other)} in another."
        fix = "Bring all samples to one size in the dataset: pad, resize or crop them."
        raise CacheError(_INPUT, problem, (), fix)
    return torch.stack(list(tensors))


def _kind(value: object) -> str:
    return described(value) if isinstance(value, Tensor) else f"a {type(value).__name__}"
