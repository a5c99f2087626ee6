"""The rows of a cost table: they fit on one screen, and equal neighbours share a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline._core.param import split_path
from frostline._core.reporting.bill import UnitCost
from frostline._core.reporting.neighbours import grouped, label

MOST = 24


@final
@dataclass(frozen=True, slots=True)
class CostRow:
    """The units in one row.

    Attributes:
        keys: the keys of its top module, from the root down.
        count: the number of equal neighbours in the row.
        units: all units of the row.
    """

    keys: tuple[str, ...]
    count: int
    units: tuple[UnitCost, ...]

    @property
    def label(self) -> str:
        """The name in the first column."""
        return label(self.keys, self.count) if self.keys else "model"

    def parts(self) -> list[CostRow]:
        """Returns the rows below it, with equal neighbours in one row; without any, the row itself."""
        if self.count > 1:
            return [self]
        depth = len(self.keys) + 1
        groups: dict[tuple[str, ...], list[UnitCost]] = {}
        for unit in self.units:
            groups.setdefault(split_path(unit.path)[:depth], []).append(unit)
        rows = [CostRow(keys, 1, tuple(units)) for keys, units in groups.items()]
        together = grouped(rows, key=lambda row: row.keys[-1] if row.keys else "", likeness=_likeness)
        return [CostRow(alike[0].keys, len(alike), tuple(u for row in alike for u in row.units)) for alike in together]


def rows(units: Sequence[UnitCost]) -> list[CostRow]:
    """Returns the finest rows of a model that fit on one screen; the units come in the order of the model."""
    found = CostRow((), 1, tuple(units)).parts()
    position = 0
    while position < len(found):
        parts = found[position].parts()
        if parts != [found[position]] and len(found) + len(parts) - 1 <= MOST:
            found[position : position + 1] = parts
        else:
            position += 1
    return found


def _likeness(row: CostRow) -> object:
    depth = len(row.keys)
    return tuple((split_path(u.path)[depth:], u.kind, u.now, u.all_trained, u.limit) for u in row.units)
