"""What a framework's part of the benchmarks comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Report:
    """The numbers of one framework.

    Attributes:
        numbers: all of them, as they go into JSON.
        missed: the targets that are missed, in words.
        markdown: the tables as they go into a page, with the versions, the machine and the recipe.
    """

    numbers: dict[str, Any]
    missed: list[str]
    markdown: str = ""
