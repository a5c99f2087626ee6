"""What can be wrong with a frost line: a model that has none, or cannot be cut there."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import listed
from frostline._core.errors.training import MisfitError


class LineError(MisfitError):
    """A model without a frost line, or a line and what it is given that do not go together."""


class UntraceableError(LineError):
    """A model that a trace cannot follow, so that its frost line must be said.

    Attributes:
        reason: what stopped the trace.
    """

    def __init__(self, expression: str, reason: str) -> None:
        problem = "cannot be traced, and so its frost line is not known."
        fix = 'Say where to cut, by the path of a module: frostline(model, *example, at="layer3").'
        super().__init__(expression, problem, (reason,), fix)
        self.reason = reason

    def __reduce__(self) -> tuple[type[UntraceableError], tuple[str, str]]:
        return type(self), (self.expression, self.reason)

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.expression} {self.problem}"
        yield "What stopped the trace:"
        yield from listed(self.found, 5)
        yield self.fix
