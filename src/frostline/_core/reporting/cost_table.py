"""A cost as a table: in a terminal, and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from frostline._core.errors.base import counted
from frostline._core.reporting.cost_rows import MOST, rows
from frostline._core.reporting.table import human

if TYPE_CHECKING:
    from frostline._core.reporting.cost import Bill, Cost, Culprit

_TITLES = ("", "forward", "input grad", "weight grad", "saved", "least saved", "gradients", "optimizer", "peak")


def flops(count: int) -> str:
    """A number of floating-point operations for people.

    Example:
        >>> from frostline._core.reporting.cost_table import flops
        >>> flops(999), flops(2_500), flops(3_640_000_000), flops(0)
        ('999', '2.5 k', '3.6 G', '0')
    """
    if count < 1000:
        return str(count)
    size, units = count / 1000, ["k", "M", "G", "T", "P"]
    # 999.95 would be printed as 1000.0.
    while size >= 999.95 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.1f} {units[0]}"


def verdict(cost: Cost) -> str:
    """How close to the limit, in one line."""
    return f"{_percent(cost.flop_percent)} of the FLOP limit, {_percent(cost.byte_percent)} of the byte limit"


def accusation(culprit: Culprit) -> str:
    """What the culprit does, and the fix, in two lines."""
    named = ", ".join(map(repr, culprit.paths[:3]))
    rest = len(culprit.paths) - 3
    named += f" and {rest} more" if rest > 0 else ""
    verb = "makes" if len(culprit.paths) == 1 else "make"
    chain = f"{verb} the gradient pass through frozen units: {flops(culprit.chain_flops)} FLOPs a step"
    return f"{named} {chain}, {culprit.ratio:.2f} × what it would cost without.\n{culprit.fix}"


def rendered(cost: Cost) -> RenderableType:
    """The table for a terminal, and below it what to make of it."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in _TITLES:
        shown.add_column(title, justify="right" if title else "left", no_wrap=True)
    for name, cells in _rows(cost):
        # Text, not markup: a path may hold brackets.
        shown.add_row(Text(name), *map(Text, cells))
    return Group(shown, *map(Text, _sentences(cost)))


def page(cost: Cost) -> str:
    """The table for a notebook: no script, nothing from elsewhere."""
    head = "".join(f"<th style='text-align:left'>{escape(title)}</th>" for title in _TITLES)
    body = "".join(_row(name, cells) for name, cells in _rows(cost))
    below = "".join(f"<p>{escape(sentence)}</p>" for sentence in _sentences(cost))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _row(name: str, cells: Iterable[str]) -> str:
    numbers = "".join(f"<td style='text-align:right'>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td style='text-align:left'><code>{escape(name)}</code></td>{numbers}</tr>"


def _sentences(cost: Cost) -> Iterator[str]:
    yield f"{verdict(cost)}."
    if cost.culprit is not None:
        yield from accusation(cost.culprit).splitlines()


def _rows(cost: Cost) -> Iterator[tuple[str, list[str]]]:
    total = type(cost.now).total
    shown = rows(cost.units)
    for row in shown[:MOST]:
        limit = total(unit.limit for unit in row.units)
        yield row.label, [*_cells(total(unit.now for unit in row.units), human(limit.saved_bytes)), ""]
    if len(shown) > MOST:
        yield f"... and {counted(len(shown) - MOST, 'row')} more", [""] * (len(_TITLES) - 1)
    for name, bill in (("now", cost.now), ("all trained", cost.all_trained), ("limit", cost.limit)):
        yield f"= {name}", [*_cells(bill, ""), human(bill.peak_bytes)]


def _cells(bill: Bill, least_saved: str) -> list[str]:
    operations = (bill.forward_flops, bill.input_gradient_flops, bill.weight_gradient_flops)
    kept = [human(bill.saved_bytes), least_saved, human(bill.gradient_bytes), human(bill.optimizer_bytes)]
    return [*map(flops, operations), *kept]


def _percent(value: float) -> str:
    return f"{value:.0f} %"
