"""Errors about what goes along with training: optimizers, delta checkpoints and schedules."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import ExpressionError


class BindError(ExpressionError, ValueError):
    """An optimizer and a model that do not go together."""


class DeltaError(ExpressionError, ValueError):
    """A delta checkpoint that cannot be written, or does not go with a model."""


class RunError(ExpressionError, ValueError):
    """A folder with a run that cannot be written, or does not go with a model, its optimizers and its driver."""


class ScheduleError(ExpressionError, ValueError):
    """A schedule or policy that cannot be made, read or walked."""

    def _lines(self) -> Iterable[str]:
        # What there is instead may be a sentence here, and comes with its own indent.
        return [f"{self.expression} {self.problem}", *self.found, self.fix]
