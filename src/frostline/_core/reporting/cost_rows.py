"""The rows of a cost: few enough for one screen, and neighbours that are alike in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, final

from frostline._core.selecting.pattern import spell
from frostline._core.tree import is_position

if TYPE_CHECKING:
    from frostline._core.reporting.cost import UnitCost

MOST = 24


@final
@dataclass(frozen=True, slots=True)
class Row:
    """What a row stands for.

    Attributes:
        keys: of the module at the top of it, from the root down.
        last: the number of the last one, where it stands for neighbours in a list; else the same as the first.
        units: all of its units.
    """

    keys: tuple[str, ...]
    last: str
    units: tuple[UnitCost, ...]

    @property
    def label(self) -> str:
        """What it is called."""
        if not self.keys:
            return "model"
        if self.last == self.keys[-1]:
            return spell(self.keys)
        first, stop = int(self.keys[-1]), int(self.last) + 1
        return f"{spell(self.keys[:-1])}[{first}:{stop}] ×{stop - first}"

    def parts(self) -> list[Row]:
        """What is below it, neighbours that cost the same together; itself alone if there is nothing below."""
        if self.keys and self.last != self.keys[-1]:
            return [self]
        depth = len(self.keys) + 1
        groups: dict[tuple[str, ...], list[UnitCost]] = {}
        for unit in self.units:
            groups.setdefault(_keys(unit)[:depth], []).append(unit)
        rows = [Row(keys, keys[-1] if keys else "", tuple(units)) for keys, units in groups.items()]
        return list(_folded(rows))


def rows(units: Sequence[UnitCost]) -> list[Row]:
    """The rows of a model, the finest that fit on one screen.

    Args:
        units: in the order of the model.
    """
    found = Row((), "", tuple(units)).parts()
    position = 0
    while position < len(found):
        parts = found[position].parts()
        if parts != [found[position]] and len(found) + len(parts) - 1 <= MOST:
            found[position : position + 1] = parts
        else:
            position += 1
    return found


def _folded(rows: Sequence[Row]) -> Iterator[Row]:
    """Neighbours with consecutive numbers that cost the same, in one row."""

    def run(place: tuple[int, Row]) -> object:
        position, row = place
        key = row.last
        return (int(key) - position, _likeness(row)) if is_position(key) else key

    for _, group in groupby(enumerate(rows), key=run):
        alike = [row for _, row in group]
        units = tuple(unit for row in alike for unit in row.units)
        yield Row(alike[0].keys, alike[-1].last, units)


def _likeness(row: Row) -> object:
    depth = len(row.keys)
    return tuple((_keys(u)[depth:], u.kind, u.now, u.all_trained, u.limit) for u in row.units)


def _keys(unit: UnitCost) -> tuple[str, ...]:
    return tuple(unit.path.split(".")) if unit.path else ()
