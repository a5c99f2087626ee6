"""What can be wrong when the frozen parts of a model are to be made cheap."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import FrostlineError, counted


class NothingFrozenError(FrostlineError, ValueError):
    """Making frozen parts cheap where nothing is frozen.

    Attributes:
        expression: what was asked for.
        params: how many parameters the model has.
        freezing: what would freeze something, as code.
    """

    def __init__(self, expression: str, params: int, freezing: str) -> None:
        super().__init__(expression, params, freezing)
        self.expression, self.params, self.freezing = expression, params, freezing

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.expression} finds nothing frozen among {counted(self.params, 'parameter')}."
        yield "Only what is frozen can be made cheap; all of it is trainable."
        yield f"Freeze first: {self.freezing}; {self.expression}."


class BudgetError(FrostlineError, ValueError):
    """A memory budget that no checkpointing of frozen blocks can hold.

    Attributes:
        budget: what was asked for, in bytes saved for backward.
        reachable: the least that can be reached, in bytes.
        plain: what is saved without a budget, in bytes.
    """

    def __init__(self, budget: int, reachable: int, plain: int) -> None:
        super().__init__(budget, reachable, plain)
        self.budget, self.reachable, self.plain = budget, reachable, plain

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"memory_budget={self.budget} cannot be met: {self.reachable} bytes is the least that can be reached."
        yield f"Without a budget {self.plain} bytes are saved for backward; with every frozen block checkpointed,"
        yield f"{self.reachable} are left, which trainable parts and the inputs of the blocks need."
        yield f"Pass memory_budget={self.reachable}, freeze more, or make the batch smaller."
