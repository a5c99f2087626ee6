"""The rows of a cost table: few enough for one screen, with equal neighbours in one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

from frostline._core.reporting.bill import UnitCost
from frostline._core.selecting.pattern import spell
from frostline._core.tree import is_position

MOST = 24


@final
@dataclass(frozen=True, slots=True)
class CostRow:
    """The units in one row.

    Attributes:
        keys: the keys of its top module, from the root down.
        last: the number of the last module, if the row is for neighbours in a list; otherwise the last key.
        units: all units in it.
    """

    keys: tuple[str, ...]
    last: str
    units: tuple[UnitCost, ...]

    @property
    def label(self) -> str:
        """The name in the first column."""
        if not self.keys:
            return "model"
        if self.last == self.keys[-1]:
            return spell(self.keys)
        first, stop = int(self.keys[-1]), int(self.last) + 1
        return f"{spell(self.keys[:-1])}[{first}:{stop}] ×{stop - first}"

    def parts(self) -> list[CostRow]:
        """The rows below it, with equal neighbours together; itself alone if there are none."""
        if self.keys and self.last != self.keys[-1]:
            return [self]
        depth = len(self.keys) + 1
        groups: dict[tuple[str, ...], list[UnitCost]] = {}
        for unit in self.units:
            groups.setdefault(_keys(unit)[:depth], []).append(unit)
        rows = [CostRow(keys, keys[-1] if keys else "", tuple(units)) for keys, units in groups.items()]
        return list(_folded(rows))


def rows(units: Sequence[UnitCost]) -> list[CostRow]:
    """The finest rows of a model that fit on one screen.

    Args:
        units: in the order of the model.
    """
    found = CostRow((), "", tuple(units)).parts()
    position = 0
    while position < len(found):
        parts = found[position].parts()
        if parts != [found[position]] and len(found) + len(parts) - 1 <= MOST:
            found[position : position + 1] = parts
        else:
            position += 1
    return found


def _folded(rows: Sequence[CostRow]) -> Iterator[CostRow]:
    """Joins neighbours with consecutive numbers and equal costs in one row."""

    def run(place: tuple[int, CostRow]) -> object:
        position, row = place
        key = row.last
        return (int(key) - position, _likeness(row)) if is_position(key) else key

    for _, group in groupby(enumerate(rows), key=run):
        alike = [row for _, row in group]
        units = tuple(unit for row in alike for unit in row.units)
        yield CostRow(alike[0].keys, alike[-1].last, units)


def _likeness(row: CostRow) -> object:
    depth = len(row.keys)
    return tuple((_keys(u)[depth:], u.kind, u.now, u.all_trained, u.limit) for u in row.units)


def _keys(unit: UnitCost) -> tuple[str, ...]:
    return tuple(unit.path.split(".")) if unit.path else ()
