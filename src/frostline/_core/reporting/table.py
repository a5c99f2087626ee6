"""Tables for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

Cell = tuple[str, str]
"""A text and its style; a cell of the first column may have several."""


def rendered(
    titles: Sequence[str], rows: Iterable[Sequence[Cell | Sequence[Cell]]], sentences: Iterable[str], *, numbers: int
) -> RenderableType:
    """Returns a table for a terminal, with sentences below it.

    Args:
        titles: the titles of the columns.
        rows: the cells by row; a cell may be a sequence of parts.
        sentences: the sentences, each on a line.
        numbers: the number of columns after the first one that contain numbers.
    """
    # Imported here and below, because most programs show no table.
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        shown.add_column(title, justify="right" if 1 <= place <= numbers else "left", no_wrap=True)
    for row in rows:
        # Text, not markup: a path may contain brackets.
        shown.add_row(*(Text(*cell) if isinstance(cell[0], str) else Text.assemble(*cell) for cell in row))
    return Group(shown, *map(Text, sentences))


def plain(shown: RenderableType) -> str:
    """Returns the text of a table without wrapping it."""
    from rich.console import Console

    console = Console(width=100_000, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def page(titles: Iterable[str], rows: Iterable[str], sentences: Iterable[str]) -> str:
    """Returns a table for a notebook, with sentences below it; the HTML has no scripts and no links.

    Args:
        titles: the titles of the columns.
        rows: the rows, made by :func:`html_row`.
        sentences: the sentences, each in a paragraph.
    """
    head = "".join(f"<th style='text-align:left'>{escape(title)}</th>" for title in titles)
    below = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{below}"


def html_row(name: str, numbers: Iterable[str], rest: str = "") -> str:
    """Returns a row for :func:`page`.

    Args:
        name: the name of the row, as HTML.
        numbers: the texts of the columns with numbers.
        rest: the other columns, as HTML.
    """
    cells = "".join(f"<td style='text-align:right'>{escape(number)}</td>" for number in numbers)
    return f"<tr><td style='text-align:left'>{name}</td>{cells}{rest}</tr>"


def code(text: str) -> str:
    """Returns a text in a fixed-width font, as HTML."""
    return f"<code>{escape(text)}</code>"
