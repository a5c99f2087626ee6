"""Errors about a frost line, and about how the part below it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from frostline._core.errors.base import ExpressionError, listed


class LineError(ExpressionError, ValueError):
    """A model without a frost line, or a line and an input that do not go together."""


class UntraceableError(LineError):
    """A model that a trace cannot follow, so that its frost line must be given.

    Attributes:
        reason: what stopped the trace.
    """

    problem: str = field(default="cannot be traced, and so its frost line is not known.", init=False)
    found: tuple[str, ...] = field(default=(), init=False)
    fix: str = field(
        default='Say where to cut, by the path of a module: frostline(model, *example, at="layer3").', init=False
    )
    reason: str

    def __post_init__(self) -> None:
        self.found = (self.reason,)
        super().__post_init__()

    def _lines(self) -> Iterable[str]:
        return [f"{self.expression} {self.problem}", "What stopped the trace:", *listed(self.found, 5), self.fix]


class RuntimeChoiceError(ExpressionError, ValueError):
    """A runtime that does not exist, cannot run here, or whose output is further off than the bound allows."""
