"""Tables for people: one for a terminal, by rich, and one for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

Cell = tuple[str, str]
"""A text and its style; in a first column several may follow one another."""


def rendered(
    titles: Sequence[str], rows: Iterable[Sequence[Cell | Sequence[Cell]]], sentences: Iterable[str], *, numbers: int
) -> RenderableType:
    """A table for a terminal, with sentences below it.

    Args:
        titles: of the columns.
        rows: cells by row; a cell of several parts is a sequence of them.
        sentences: a line each.
        numbers: how many columns after the first hold numbers.
    """
    # Imported here and below, because most programs show no table.
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        shown.add_column(title, justify="right" if 1 <= place <= numbers else "left", no_wrap=True)
    for row in rows:
        # Text, not markup: a path may hold brackets.
        shown.add_row(*(Text(*cell) if isinstance(cell[0], str) else Text.assemble(*cell) for cell in row))
    return Group(shown, *map(Text, sentences))


def plain(shown: RenderableType) -> str:
    """The text of a table, as wide as it needs to be."""
    from rich.console import Console

    console = Console(width=100_000, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def page(titles: Iterable[str], rows: Iterable[str], sentences: Iterable[str]) -> str:
    """A table for a notebook, with sentences below it: no script, nothing from elsewhere.

    Args:
        titles: of the columns.
        rows: each made by :func:`html_row`.
        sentences: a paragraph each.
    """
    head = "".join(f"<th style='text-align:left'>{escape(title)}</th>" for title in titles)
    below = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{below}"


def html_row(name: str, numbers: Iterable[str], rest: str = "") -> str:
    """A row for :func:`page`.

    Args:
        name: of the row, as HTML.
        numbers: texts of the columns with numbers.
        rest: the other columns, as HTML.
    """
    cells = "".join(f"<td style='text-align:right'>{escape(number)}</td>" for number in numbers)
    return f"<tr><td style='text-align:left'>{name}</td>{cells}{rest}</tr>"


def code(text: str) -> str:
    """A text in a fixed-width font, as HTML."""
    return f"<code>{escape(text)}</code>"
