"""The numbers of a Lightning run by which a policy decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from frostline._core.errors import ScheduleError


def numbers_of(trainer: Any, given: Mapping[str, Any]) -> dict[str, float]:
    """Returns the plain numbers among what is given, as means over all processes.

    Args:
        trainer: the trainer.
        given: what ``training_step`` returned, or what was logged.

    Raises:
        ScheduleError: there is none.
    """
    numbers = {name: torch.as_tensor(value) for name, value in given.items() if isinstance(value, float | torch.Tensor)}
    numbers = {name: value.detach() for name, value in numbers.items() if value.numel() == 1}
    if not numbers:
        problem = f"gets no number after step {trainer.global_step}."
        fix = 'Return the loss from training_step; with unit="epoch" log it there: self.log("loss", loss).'
        raise ScheduleError("Freezing(schedule=policy)", problem, (), fix)
    if trainer.world_size > 1:
        numbers = {name: trainer.strategy.reduce(value, reduce_op="mean") for name, value in numbers.items()}
    return {name: float(value) for name, value in numbers.items()}
