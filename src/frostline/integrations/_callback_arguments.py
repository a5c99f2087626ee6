"""What the callbacks of trainers take: ``Freezing(*selectors, schedule=..., unit=...)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from frostline._core.errors import ScheduleError, SelectorError
from frostline.schedules.arguments import choice
from frostline.schedules.policy import Policy
from frostline.schedules.schedule import Schedule
from frostline.torch import Handle, freeze, trainable
from frostline.torch._freezing.selection import Choice, written


def check_arguments(selectors: Sequence[Any], schedule: object, unit: object, head: str) -> None:
    """Checks the arguments of a callback.

    Args:
        selectors: what it was given by position.
        schedule: the schedule or policy, or None.
        unit: what it counts.
        head: what a head is called in models of this trainer, for errors.

    Raises:
        SelectorError: there are neither selectors nor a schedule.
        ScheduleError: `schedule` is none; or one is among the selectors; or `unit` is neither "step" nor "epoch".
    """
    example = f'Freezing(schedule=LinearProbe(["{head}"], steps=500))'
    if not selectors and schedule is None:
        fix = f'Write Freezing("**", "!{head}"), or {example}.'
        raise SelectorError("Freezing()", "has neither selectors nor a schedule.", fix)
    for each in selectors:
        if isinstance(each, Schedule | Policy):
            raise ScheduleError(f"Freezing({each!r})", "has a schedule for a selector.", (), f"Write {example}.")
    if not isinstance(schedule, Schedule | Policy | None):
        problem = "is neither a schedule nor a policy."
        raise ScheduleError(f"Freezing(schedule={schedule!r})", problem, (), f"Write {example}.")
    choice("Freezing", "unit", unit, ("step", "epoch"))


def frozen_throughout(model: nn.Module, selectors: Sequence[Choice], head: str) -> Handle:
    """Freezes what stays frozen for a whole run, in place.

    Args:
        model: the model.
        selectors: what the callback was given, not empty.
        head: what a head is called in models of this trainer, for the error.

    Raises:
        SelectorError: nothing is left to train. Nothing is changed then.
    """
    handle = freeze(model, *selectors)
    if not trainable(model):
        handle.undo()
        expression = f"Freezing({written('', selectors).removeprefix(', ')})"
        problem = f"freezes all {len(handle.plan.frozen)} parameters, and leaves nothing to train."
        raise SelectorError(expression, problem, f'Take something back: Freezing("**", "!{head}").')
    return handle
