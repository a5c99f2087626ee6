"""The chart of a schedule: how much of each part of a model trains, and when."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, final

from frostline._core import document
from frostline._core.inventory import Inventory
from frostline._core.reporting.table import plain
from frostline.schedules.arguments import whole
from frostline.schedules.columns import columns as in_columns
from frostline.schedules.drawing import drawn
from frostline.schedules.phase import Phase
from frostline.schedules.rows import Bands, ModelBands, SelectorBands
from frostline.schedules.schedule import Schedule

if TYPE_CHECKING:
    from rich.console import RenderableType


@final
@dataclass(frozen=True)
class Chart:
    """A schedule drawn as one band for each part of a model, in columns of equally many steps.

    It prints as a chart, and `to_dict` returns plain data.

    Attributes:
        schedule: the schedule.
        rows: the selectors of its parts, from input to output; then "everything else".
        steps: the number of steps shown.
        width: the number of steps in a column; the last column may have fewer.
        cells: for each row and column, the mean factor of the learning rate over the steps, 0 where frozen.
        shares: for each row, the share of the steps in which it trains.

    If the phase changes more than 4096 times, both are estimated from 64 steps of each column.

    Example:
        >>> from frostline.schedules.linear_probe import LinearProbe
        >>> print(Chart.of(LinearProbe(["head"], steps=3), steps=8))
        LinearProbe(head=('head',), steps=3)
        head             ████████  100%
        everything else  ···█████   62%
                         0      8
        █ trains   ▓▒░ at a lower rate, or for a part of a column   · frozen   1 step a column
    """

    schedule: Schedule
    rows: tuple[str, ...]
    steps: int
    width: int
    cells: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]

    @classmethod
    def of(
        cls, schedule: Schedule, *, steps: int | None = None, columns: int = 64, inventory: Inventory | None = None
    ) -> Chart:
        """Draws the chart of a schedule.

        Args:
            schedule: the schedule.
            steps: the number of steps to show; by default the horizon of the schedule.
            columns: the largest number of columns.
            inventory: the model. Without one, a selector covers itself and the paths that begin with it, and wildcards
                are not resolved.

        Raises:
            ScheduleError: `steps` or `columns` is not a positive integer.
            NoMatchError: a selector matches nothing in the model.
        """
        steps = whole("Chart.of", "steps", schedule.horizon if steps is None else steps, least=1)
        most = whole("Chart.of", "columns", columns, least=1)
        parts = tuple(schedule.parts)
        bands: Bands = SelectorBands(parts) if inventory is None else ModelBands(parts, inventory)
        width, found = in_columns(schedule, steps, most)
        means = [_means(column, bands) for column in found]
        cells = tuple(tuple(factor for factor, _ in row) for row in zip(*means, strict=True))
        shares = tuple(_overall([share for _, share in row], steps, width) for row in zip(*means, strict=True))
        return cls(schedule, bands.rows, steps, width, cells, shares)

    def to_dict(self) -> dict[str, object]:
        """Returns the chart as data for JSON, with every change of the phase."""
        rows = zip(self.rows, self.shares, self.cells, strict=True)
        changes = [{"step": step, **phase.to_dict()} for step, phase in self.schedule.changes(self.steps)]
        fields = {
            "schedule": self.schedule.to_dict(),
            "steps": self.steps,
            "steps_a_column": self.width,
            "rows": [{"part": part, "trains": share, "columns": list(cells)} for part, share, cells in rows],
            "changes": changes,
        }
        return document.stamped("chart", fields)

    def __str__(self) -> str:
        return plain(self.__rich__())

    def __rich__(self) -> RenderableType:
        return drawn(repr(self.schedule), self.rows, self.cells, self.shares, (self.steps, self.width))


def _means(column: Counter[Phase], bands: Bands) -> list[tuple[float, float]]:
    """Returns for each row the mean factor in a column, and the share of the column in which it trains."""
    seen = [(bands.at(phase), count) for phase, count in column.items()]
    rows = range(len(bands.rows))
    totals = [[fsum(each[row][kind] * count for each, count in seen) for kind in (0, 1)] for row in rows]
    return [(factor / column.total(), share / column.total()) for factor, share in totals]


def _overall(shares: list[float], steps: int, width: int) -> float:
    return fsum(share * min(width, steps - place * width) for place, share in enumerate(shares)) / steps
