"""The ways to train that are compared, and what each is held to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.in_schedules.setup import MOMENTS, VALUE, Setup
from frostline.schedules import LISA, BAdam, HiFT, Schedule

FULL, AGAIN = "full training", "full training again"
Moments = Literal["release", "keep"]
RELEASE: Moments = "release"
KEEP: Moments = "keep"
SAMPLED = 2
RATE, DECAY = 1e-3, 0.1


def schedules(setup: Setup) -> dict[str, Schedule]:
    """The three, with blocks that together are the whole model."""
    every = list(setup.blocks)
    return {
        "LISA": LISA(every[1:-1], sampled=SAMPLED, period=setup.period, always=["embed", "head"]),
        "BAdam": BAdam(every, period=setup.period),
        "HiFT": HiFT(every, size=1),
    }


def ways(setup: Setup) -> Iterator[tuple[str, Moments, Schedule | None]]:
    """The name of each, what it does with moments, and its schedule; full training twice, which shows the noise."""
    yield FULL, RELEASE, None
    yield AGAIN, RELEASE, None
    for name, schedule in schedules(setup).items():
        for moments in (RELEASE, KEEP):
            yield name, moments, schedule


def trained_at(setup: Setup, schedule: Schedule | None, step: int) -> list[str]:
    """The blocks that train at a step: what the phase takes back from "**"."""
    if schedule is None:
        return list(setup.blocks)
    return [selector.removeprefix("!") for selector in schedule.at(step).frozen[1:]]


@dataclass(frozen=True)
class Held:
    """Bytes that are held at a step, or foretold to be; counters of steps are left out.

    Attributes:
        optimizer: moments of what trains, after the step.
        kept: moments of what is frozen.
        gradients: as backward leaves them.
    """

    optimizer: int
    kept: int
    gradients: int


def foretold(setup: Setup, schedule: Schedule | None, moments: Moments) -> list[Held]:
    """What must be held at each step, by the sizes of the blocks and the schedule alone."""
    held, seen = [], set[str]()
    for step in range(setup.steps):
        now = set(trained_at(setup, schedule, step))
        trains, idle = (sum(setup.blocks[name] for name in names) for names in (now, seen - now))
        held.append(Held(MOMENTS * trains, MOMENTS * idle if moments == KEEP else 0, VALUE * trains))
        seen |= now
    return held
