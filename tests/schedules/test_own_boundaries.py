"""Schedules of your own whose boundaries go on while their phase stays, or do not go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from frostline._core.errors import ScheduleError
from frostline.schedules import Phase, Schedule


@dataclass(frozen=True, repr=False)
class Warmup(Schedule):
    """A rate that rises step by step, asked again at each step for ever."""

    part: str
    steps: int

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.part,)

    def _at(self, step: int) -> Phase:
        return Phase([], rates=[(self.part, min(1.0, (step + 1) / self.steps))])

    def _boundary(self, step: int) -> int | None:
        return step + 1


@dataclass(frozen=True, repr=False)
class Constant(Warmup):
    """One phase from the first step on."""

    def _at(self, step: int) -> Phase:
        return Phase([self.part])


@dataclass(frozen=True, repr=False)
class ThawsOnce(Warmup):
    """Two phases, with a boundary each period for ever."""

    def _at(self, step: int) -> Phase:
        return Phase([self.part] if step < self.steps else [])

    def _boundary(self, step: int) -> int | None:
        return (step // 7 + 1) * 7


@dataclass(frozen=True, repr=False)
class Stuck(Warmup):
    """A boundary that is no later step."""

    def _boundary(self, step: int) -> int | None:
        return step - step % 4


@pytest.mark.parametrize(
    ("schedule", "changes", "horizon"),
    [
        (Warmup("[0]", 3), [0, 1, 2], 3),
        (Constant("[0]", 3), [0], 1),
        (ThawsOnce("[0]", 700), [0, 700], 1400),
    ],
)
def test_a_phase_that_stays_comes_to_an_end(schedule: Schedule, changes: list[int], horizon: int) -> None:
    assert [step for step, _ in schedule.changes(1500)] == changes
    assert schedule.next_change(changes[-1]) is None
    assert schedule.horizon == horizon
    assert len(schedule.foreseen) <= 60


@pytest.mark.parametrize("look", [lambda s: s.horizon, lambda s: list(s.changes(9)), lambda s: s.next_change(0)])
def test_a_boundary_that_is_no_later_step_is_an_error(look: Callable[[Schedule], object]) -> None:
    with pytest.raises(ScheduleError) as raised:
        look(Stuck("[0]", 3))
    assert str(raised.value).splitlines() == [
        "Stuck._boundary(0) gave step 0, and must give a step after 0, or None.",
        "Return the next step at which the phase may change: return step + 1.",
    ]
