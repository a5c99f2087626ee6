"""What can be wrong with a schedule or a policy."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import FrostlineError


class ScheduleError(FrostlineError, ValueError):
    """A schedule or a policy that cannot be, one that cannot be read, or one that is asked what it cannot answer.

    Attributes:
        expression: what was written.
        problem: what is wrong with it.
        found: what there was instead, or could be; a line each.
        fix: what to write instead.
    """

    def __init__(self, expression: str, problem: str, found: tuple[str, ...], fix: str) -> None:
        super().__init__(expression, problem, found, fix)
        self.expression, self.problem, self.found, self.fix = expression, problem, found, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.expression} {self.problem}"
        yield from self.found
        yield self.fix
