"""Linear probing, then fine-tuning: first only the head trains, then everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from frostline.schedules.arguments import blocks, whole
from frostline.schedules.phase import Phase, all_but
from frostline.schedules.schedule import Schedule


@final
@dataclass(frozen=True, repr=False)
class LinearProbe(Schedule):
    """Linear probing, then fine-tuning, so that a new head does not distort the pretrained features.

    Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
    https://arxiv.org/abs/2202.10054. The paper trains the probe to convergence, with a separate solver if possible, and
    gives fine-tuning its own learning rate. Here one optimizer does both in one run, and the probe lasts `steps` steps.

    Args:
        head: selectors of the head.
        steps: the number of steps in which only the head trains.

    Raises:
        ScheduleError: `head` is empty, or `steps` is not a positive integer.

    Example:
        >>> schedule = LinearProbe(["head"], steps=500)
        >>> [(step, phase.name, phase.frozen) for step, phase in schedule.changes(10_000)]
        [(0, 'probe', ('**', '!head')), (500, 'fine-tune', ())]
    """

    head: Sequence[str]
    steps: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", blocks("LinearProbe", "head", self.head))
        object.__setattr__(self, "steps", whole("LinearProbe", "steps", self.steps, least=1))

    @property
    def parts(self) -> Sequence[str]:
        """The head."""
        return self.head

    def _at(self, step: int) -> Phase:
        return Phase(all_but(self.head), name="probe") if step < self.steps else Phase(name="fine-tune")

    def _boundary(self, step: int) -> int | None:
        return self.steps if step < self.steps else None
