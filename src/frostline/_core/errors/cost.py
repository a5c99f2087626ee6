"""Errors about what a model costs, and about making its frozen parts cheap."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import ExpressionError, FrostlineError, counted


class CostError(ExpressionError, ValueError):
    """A model whose cost cannot be computed with this example."""


class NothingFrozenError(FrostlineError, ValueError):
    """Making frozen parts cheap where nothing is frozen.

    Attributes:
        expression: what was asked for.
        params: how many parameters the model has.
        freezing: what would freeze something, as code.
    """

    expression: str
    params: int
    freezing: str

    def _lines(self) -> Iterable[str]:
        yield f"{self.expression} finds nothing frozen among {counted(self.params, 'parameter')}."
        yield "Only frozen parts can be made cheap, and all of it is trainable."
        yield f"Freeze first: {self.freezing}; {self.expression}."


class BudgetError(FrostlineError, ValueError):
    """A memory budget that no checkpointing of frozen blocks can keep.

    Attributes:
        budget: what was asked for, in bytes saved for backward.
        reachable: the least that can be reached, in bytes.
        plain: what is saved without a budget, in bytes.
    """

    budget: int
    reachable: int
    plain: int

    def _lines(self) -> Iterable[str]:
        yield f"memory_budget={self.budget} cannot be met: {self.reachable} bytes is the least that can be reached."
        yield f"Without a budget {self.plain} bytes are saved for backward; with every frozen block checkpointed,"
        yield f"{self.reachable} are left, which trainable parts and the inputs of the blocks need."
        yield f"Pass memory_budget={self.reachable}, freeze more, or make the batch smaller."


class BudgetValueError(FrostlineError, ValueError):
    """A memory budget that is neither bytes nor a fraction.

    Attributes:
        budget: what was given.
    """

    budget: object

    def _lines(self) -> Iterable[str]:
        return [
            f"memory_budget={self.budget!r} is neither of the 2 kinds of budget.",
            "There are:",
            "  memory_budget=200_000_000  bytes saved for backward, an int of at least 1",
            "  memory_budget=0.5          a part of what plain freezing saves, a float above 0.0 and up to 1.0",
            "Pass memory_budget=0.5, or leave it out.",
        ]
