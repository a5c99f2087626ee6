"""What can be wrong with a memory budget before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import FrostlineError


class BudgetValueError(FrostlineError, ValueError):
    """A memory budget that is neither bytes nor a fraction.

    Attributes:
        budget: what was given.
    """

    def __init__(self, budget: object) -> None:
        super().__init__(budget)
        self.budget = budget

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [
            f"memory_budget={self.budget!r} is neither of the 2 kinds of budget.",
            "There are:",
            "  memory_budget=200_000_000  bytes saved for backward, an int of at least 1",
            "  memory_budget=0.5          a part of what plain freezing saves, a float above 0.0 and up to 1.0",
            "Pass memory_budget=0.5, or leave it out.",
        ]
