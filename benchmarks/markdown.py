"""Tables that can be read in a terminal and pasted into a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """Rows and headings; all columns but the first `words` are numbers."""
    lines = [headings, [*["---"] * words, *["---:"] * (len(headings) - words)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
