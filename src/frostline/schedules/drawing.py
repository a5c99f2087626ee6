"""Drawing the chart of a schedule in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

# From frozen to the full rate; a part that trains a little never looks frozen.
_SHADES = "·░▒▓█"
_STYLES = {"·": "cyan", "░": "green", "▒": "green", "▓": "green", "█": "green"}


def drawn(
    title: str,
    rows: Sequence[str],
    cells: Sequence[Sequence[float]],
    shares: Sequence[float],
    extent: tuple[int, int],
) -> RenderableType:
    """Returns the chart for a terminal.

    Args:
        title: the first line.
        rows: the names of the rows.
        cells: the factors of the learning rate by row and column; the largest factor is drawn as a full block.
        shares: the share of the steps in which each row trains.
        extent: the number of steps, and the number of steps in a column.
    """
    # Imported here, because most programs draw no chart.
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    steps, width = extent
    top = max((cell for row in cells for cell in row), default=1.0) or 1.0
    table = Table.grid(padding=(0, 2), pad_edge=False)
    for justify in ("left", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for name, row, share in zip(rows, cells, shares, strict=True):
        # Text, not markup: a name may contain brackets.
        table.add_row(Text(name), _band(row, top), Text(f"{100 * share:.0f}%"))
    table.add_row(Text(), Text(_axis(steps, len(cells[0])), "dim"), Text())
    return Group(Text(title, "bold"), table, Text(_legend(width, top), "dim"))


def shade(cell: float, top: float) -> str:
    """Returns the character for a factor of the learning rate.

    Example:
        >>> [shade(cell, 1.0) for cell in (0.0, 0.01, 0.5, 0.99, 1.0)]
        ['·', '░', '▒', '▓', '█']
    """
    if cell <= 0.0:
        return _SHADES[0]
    # A sum of floating-point parts may be slightly less than the whole.
    return _SHADES[4] if cell >= top * (1 - 1e-9) else _SHADES[1 + min(2, int(3 * cell / top))]


def _band(row: Sequence[float], top: float) -> Text:
    from rich.text import Text

    return Text.assemble(*((each, _STYLES[each]) for each in (shade(cell, top) for cell in row)))


def _axis(steps: int, columns: int) -> str:
    end = str(steps)
    return f"0{end:>{max(columns - 1, len(end) + 1)}}"


def _legend(width: int, top: float) -> str:
    full = "trains" if top == 1.0 else f"trains at {top:.3g} of the rate"
    each = "1 step" if width == 1 else f"{width} steps"
    return f"█ {full}   ▓▒░ at a lower rate, or for a part of a column   · frozen   {each} a column"
