"""What the demo says otherwise in each framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from frostline.demo.budget import Budget


@final
@dataclass(frozen=True)
class Words:
    """The words of one framework.

    Attributes:
        framework: its name.
        command: what was typed.
        report: the call that shows what is frozen.
        guard: the call that proves it.
        arrays: what holds numbers.
        statistics: where batch norm keeps what it has seen.
        temptation: what, beside the steps, would move a trunk that is not held; `{steps}` and `{looks}` are numbers.
        by_hand: what is commonly written to freeze a trunk.
        models: the two models that share a layer, as code.
        kept: what is counted as saved for the backward pass.
        line: the calls that find the frost line and store what is below it.
    """

    framework: str
    command: str
    report: str
    guard: str
    arrays: str
    statistics: str
    temptation: str
    by_hand: str
    models: str
    kept: str
    line: str

    def tempted(self, budget: Budget) -> str:
        """What would move a trunk that is not held, with its numbers."""
        return self.temptation.format(steps=budget.steps, looks=len(budget.looks) + 1)
