"""The manifest of a feature cache: the model of its features, and the layout of a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, final

from frostline._core import document
from frostline._core.errors import CacheError
from frostline.features import precision as precisions
from frostline.features.boundary import Boundary
from frostline.features.columns import DIGEST, SOURCE, BoundaryValue, Column
from frostline.features.structure import Structure, count, is_structure

NAME = "frostline-cache.json"
_KIND = "feature_cache"
_FIELDS = ("fingerprint", "precision", "preprocessing", "rest", "samples", "structure", "values", "views")


@final
@dataclass(frozen=True)
class Manifest:
    """The model whose features a cache holds, and the layout of its rows; a row is one view of one sample.

    Attributes:
        fingerprint: the fingerprint of everything below the line.
        preprocessing: the user's name for the preprocessing of a sample.
        precision: the precision of stored floats, one of `PRECISIONS`.
        views: the number of rows of each sample.
        samples: the size of the dataset; the shards tell how many samples are stored.
        values: the values that cross the line.
        rest: the other parts of a sample, such as its label; one column for each leaf.
        structure: the nesting of the leaves of the rest.

    Example:
        >>> from frostline.features.boundary import Boundary
        >>> label = Column("rest.0", "int64", ())
        >>> layer = Boundary("layer3", (256, 7, 7), "float32", 50176)
        >>> made = Manifest.of("1f3a", [layer], samples=1000, rest=(label,), structure=["tuple", "int"])
        >>> made.row, Manifest.from_json(made.to_json()) == made
        (50208, True)
    """

    fingerprint: str
    preprocessing: str
    precision: str
    views: int
    samples: int
    values: tuple[BoundaryValue, ...]
    rest: tuple[Column, ...]
    structure: Structure

    @classmethod
    def of(
        cls,
        fingerprint: str,
        boundary: Iterable[Boundary],
        *,
        samples: int,
        rest: Iterable[Column] = (),
        structure: Structure = ("tuple",),
        precision: str = precisions.EXACT,
        preprocessing: str = "",
        views: int = 1,
    ) -> Manifest:
        """Returns the manifest for the values that cross a line.

        Raises:
            CacheError: the precision is unknown, the dtype of a value cannot be stored, or the name of the
                preprocessing is not printable.
        """
        precisions.check(precision)
        if not isinstance(preprocessing, str) or not preprocessing.isprintable():
            words = "has unprintable characters." if isinstance(preprocessing, str) else "is not a string."
            raise CacheError(f"preprocessing={preprocessing!r}", words, (), 'Use a plain name: "resize224-v2".')
        values = tuple(BoundaryValue.of(value, precision) for value in boundary)
        return cls(fingerprint, preprocessing, precision, views, samples, values, tuple(rest), _plain(structure))

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns of a row."""
        values = (column for number, value in enumerate(self.values) for column in value.columns(number))
        return (*values, *self.rest, SOURCE, DIGEST)

    @cached_property
    def given(self) -> tuple[str, ...]:
        """The names of the columns that hold a sample; the other columns are for checks."""
        return tuple(column.name for column in self.columns if column not in (SOURCE, DIGEST))

    @property
    def row(self) -> int:
        """Bytes of one row."""
        return sum(column.nbytes for column in self.columns)

    @property
    def rows(self) -> int:
        """The number of rows of a full cache."""
        return self.samples * self.views

    @property
    def total(self) -> int:
        """Bytes of all rows, without the headers of shards."""
        return self.row * self.rows

    def with_precision(self, precision: str) -> Manifest:
        """Returns the manifest with another precision of floats."""
        values = tuple(BoundaryValue.of(value, precision) for value in self.values)
        return replace(self, precision=precision, values=values)

    def to_json(self) -> str:
        """Returns JSON text; equal manifests give equal bytes."""
        fields: dict[str, object] = {name: getattr(self, name) for name in _FIELDS}
        fields["values"] = [value.to_json() for value in self.values]
        fields["rest"] = [column.to_json() for column in self.rest]
        return document.write(_KIND, fields)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads the text that `to_json` returned.

        Raises:
            ValueError: the text is not a manifest; the error says why.
        """
        found = document.fields(document.parse(text), _KIND, _FIELDS)
        _check(found)
        values = tuple(map(BoundaryValue.from_json, found.pop("values")))
        rest = tuple(map(Column.from_json, found.pop("rest")))
        if len(rest) != count(found["structure"]):
            raise ValueError(f"its structure has {count(found['structure'])} leaves for {len(rest)} columns")
        return cls(values=values, rest=rest, **found)


def _check(found: dict[str, Any]) -> None:
    if not all(isinstance(found[name], str) for name in ("fingerprint", "precision", "preprocessing")):
        raise ValueError("its fingerprint, precision or preprocessing is not a string")
    # They are printed in a terminal, and the folder may come from somebody else.
    if not (found["fingerprint"] + found["preprocessing"]).isprintable():
        raise ValueError("its fingerprint or preprocessing has unprintable characters")
    if found["precision"] not in precisions.PRECISIONS:
        raise ValueError(f"its precision is {found['precision']!r}")
    if any(type(found[name]) is not int or found[name] < least for name, least in (("samples", 0), ("views", 1))):
        raise ValueError("its samples or views are not a number")
    if not isinstance(found["values"], list) or not isinstance(found["rest"], list):
        raise ValueError("its values or its rest are not a list")
    if not is_structure(found["structure"]):
        raise ValueError(f"{found['structure']!r} is not a structure")


def _plain(structure: Structure) -> Structure:
    """Returns the structure with lists in place of tuples, as JSON would return it."""
    return [_plain(part) for part in structure] if isinstance(structure, (list, tuple)) else structure
