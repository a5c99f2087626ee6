"""What can be wrong while a model trains: optimizers and checkpoints that do not fit."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import FrostlineError, listed


class MisfitError(FrostlineError, ValueError):
    """Two things that do not go together; never raised itself.

    Attributes:
        expression: what was asked for.
        problem: what is wrong with it, with numbers.
        found: the names that differ, or what else there was.
        fix: what to do about it, as code.
    """

    def __init__(self, expression: str, problem: str, found: tuple[str, ...], fix: str) -> None:
        super().__init__(expression, problem, found, fix)
        self.expression, self.problem, self.found, self.fix = expression, problem, found, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.expression} {self.problem}"
        yield from listed(self.found, 5)
        yield self.fix


class BindError(MisfitError):
    """An optimizer and a model that do not go together."""


class DeltaError(MisfitError):
    """A delta checkpoint that cannot be written, or does not go with a model."""
