"""A report as a table: in a terminal, and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from frostline._core.reporting.account import Amounts
from frostline._core.reporting.outline import Line

_STYLES = {"frozen": "cyan", "trainable": "green", "partly": "yellow", "": "dim"}
_COLORS = {"frozen": "#0b7285", "trainable": "#2b8a3e", "partly": "#b35c00", "": "inherit"}
_NUMERIC = 3  # the columns with numbers come first after the name


def summary(amounts: Amounts) -> str:
    """The totals in one sentence."""
    trainable = amounts.params - amounts.frozen_params
    share = f"{100 * trainable / amounts.params:.1f}%" if amounts.params else "0%"
    size = f"{human(amounts.bytes - amounts.frozen_bytes)} of {human(amounts.bytes)}"
    return f"{trainable:,} of {amounts.params:,} params are trainable ({share}; {size})."


def human(count: int) -> str:
    """A number of bytes for people.

    Example:
        >>> human(999), human(2048), human(3 * 1024**3)
        ('999 B', '2.0 KiB', '3.0 GiB')
    """
    if count < 1024:
        return f"{count} B"
    size, units = count / 1024, ["KiB", "MiB", "GiB", "TiB"]
    # 1023.95 would be printed as 1024.0.
    while size >= 1023.95 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.1f} {units[0]}"


def rendered(lines: Iterable[Line], total: Amounts, *, optimizer: bool) -> RenderableType:
    """The table for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(_titles(optimizer=optimizer)):
        is_number = 1 <= number <= _NUMERIC + optimizer
        table.add_column(title, justify="right" if is_number else "left", no_wrap=True)
    for line in lines:
        name = Text.assemble((line.guide, "dim"), line.label, ("  " + line.kind if line.kind else "", "dim"))
        # Text, not markup: a path may hold brackets.
        cells = [Text(cell) for cell in _cells(line, optimizer=optimizer)]
        table.add_row(name, *cells, Text(line.state, _STYLES[line.state]), Text(line.note, "dim"))
    return Group(table, Text(summary(total)))


def plain(shown: RenderableType) -> str:
    """The text of a table, as wide as it needs to be."""
    console = Console(width=100_000, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def page(lines: Iterable[Line], total: Amounts, *, optimizer: bool) -> str:
    """The table for a notebook: no script, nothing from elsewhere."""
    head = "".join(f"<th style='text-align:left'>{escape(title)}</th>" for title in _titles(optimizer=optimizer))
    rows = "".join(_row(line, optimizer=optimizer) for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{escape(summary(total))}</p>"


def _row(line: Line, *, optimizer: bool) -> str:
    guide = escape(line.guide).replace(" ", "&nbsp;")
    name = f"<code>{guide}{escape(line.label)}</code> <small>{escape(line.kind)}</small>"
    numbers = "".join(f"<td style='text-align:right'>{escape(cell)}</td>" for cell in _cells(line, optimizer=optimizer))
    state = f"<td style='color:{_COLORS[line.state]}'>{escape(line.state)}</td>"
    return f"<tr><td style='text-align:left'>{name}</td>{numbers}{state}<td>{escape(line.note)}</td></tr>"


def _titles(*, optimizer: bool) -> Sequence[str]:
    return ["", "params", "frozen", "memory", *(["optimizer"] if optimizer else []), "state", ""]


def _cells(line: Line, *, optimizer: bool) -> list[str]:
    amounts = line.amounts
    cells = [f"{amounts.params:,}", f"{amounts.frozen_params:,}", human(amounts.bytes)]
    return [*cells, human(amounts.optimizer_bytes)] if optimizer else cells
