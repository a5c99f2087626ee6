"""The columns of a row: each is an array with a name and a fixed shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, final

from frostline.checkpoint.stored import StoredTensor
from frostline.features.boundary import Boundary
from frostline.features.precision import ITEMSIZES, stored_as


@final
@dataclass(frozen=True, slots=True)
class Column:
    """One array of each row.

    Attributes:
        name: its name in a shard.
        dtype: the stored dtype.
        shape: the shape in one row.

    Example:
        >>> Column("value.0", "bfloat16", (16, 7, 7)).nbytes
        1568
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape) * ITEMSIZES[self.dtype]

    def of(self, rows: int) -> StoredTensor:
        """Returns the array of this column in a shard of so many rows."""
        return StoredTensor(self.name, (rows, *self.shape), self.dtype, rows * self.nbytes)

    def to_json(self) -> list[object]:
        """Returns the column as JSON data."""
        return [self.name, self.dtype, list(self.shape)]

    @classmethod
    def from_json(cls, data: Any) -> Column:
        """Reads the data that `to_json` returned.

        Raises:
            ValueError: the data is not a column.
        """
        match data:
            case [str(name), str(dtype), [*shape]] if dtype in ITEMSIZES:
                return cls(name, dtype, sizes(shape))
        raise ValueError(f"{data!r} is not a column")


@final
@dataclass(frozen=True, slots=True)
class BoundaryValue:
    """One value that crosses the line, with its stored dtype.

    Attributes:
        name: the module or operation that computes it.
        dtype: its dtype when it is computed and when it is read.
        shape: the shape of one sample.
        stored: the dtype of its column.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stored: str

    @classmethod
    def of(cls, value: Boundary | BoundaryValue, precision: str) -> BoundaryValue:
        """Returns a value that is stored with this precision."""
        return cls(value.name, value.dtype, tuple(value.shape), stored_as(value.dtype, precision))

    @property
    def is_scaled(self) -> bool:
        """Whether it is stored as int8 steps between the minimum and the maximum of a sample."""
        return self.stored == "int8" and self.dtype != "int8"

    def columns(self, number: int) -> tuple[Column, ...]:
        """Returns its columns: the numbers and, if they are scaled, the size of a step and the minimum."""
        numbers = Column(f"value.{number}", self.stored, self.shape)
        if not self.is_scaled:
            return (numbers,)
        return (numbers, Column(f"step.{number}", "float32", ()), Column(f"least.{number}", "float32", ()))

    def to_json(self) -> list[object]:
        """Returns the value as JSON data."""
        return [self.name, self.dtype, list(self.shape), self.stored]

    @classmethod
    def from_json(cls, data: Any) -> BoundaryValue:
        """Reads the data that `to_json` returned.

        Raises:
            ValueError: the data is not a value.
        """
        match data:
            case [str(name), str(dtype), [*shape], str(stored)] if {dtype, stored} <= ITEMSIZES.keys():
                if name.isprintable():
                    return cls(name, dtype, sizes(shape), stored)
        raise ValueError(f"{data!r} is not a value")


def sizes(shape: Iterable[object]) -> tuple[int, ...]:
    """Returns a shape from JSON data.

    Raises:
        ValueError: it is not a shape.
    """
    found = tuple(shape)
    # True is an int, but not a length.
    if any(type(length) is not int or length < 0 for length in found):
        raise ValueError(f"{list(found)} is not a shape")
    return found  # type: ignore[return-value]


DIGEST = Column("digest", "uint8", (8,))
"""XXH3 of all other columns of the row, so that each row can be checked alone."""

SOURCE = Column("source", "uint8", (16,))
"""XXH3 of the input of the model, so that another dataset is recognised."""
