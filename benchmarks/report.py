"""The outcome of a part of the benchmarks, and its tables in Markdown: for a terminal, and to be pasted into a page."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any


@dataclass(frozen=True)
class Report:
    """The outcome of one part.

    Attributes:
        page: how it was measured, and the tables.
        numbers: all numbers, as they go into JSON.
        missed: the targets that are missed, in words.
    """

    page: str
    numbers: dict[str, Any]
    missed: list[str]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1, title: str = "") -> str:
    """Rows and headings; all columns but the first `words` are numbers."""
    lines = [headings, [*["---"] * words, *["---:"] * (len(headings) - words)], *rows]
    return "\n".join([*([f"**{title}**", ""] if title else []), *(f"| {' | '.join(line)} |" for line in lines)])


def environment(*packages: str) -> str:
    """Versions and machine, in words."""
    versions = "".join(f"{package} {version(package)}, " for package in packages)
    return f"{versions}Python {platform.python_version()}, {platform.system()} {platform.machine()}, CPU, 1 thread"
