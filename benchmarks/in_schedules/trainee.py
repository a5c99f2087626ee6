"""What all that is trained has in common: a clock and a ledger."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from time import process_time
from typing import Any, TypeVar

from benchmarks.in_schedules.setup import Setup
from benchmarks.in_schedules.ways import Held, Moments
from frostline.schedules import Schedule

T = TypeVar("T")


@dataclass(frozen=True)
class Seconds:
    """Of one step.

    Attributes:
        train: forward, backward and update.
        backward: of these.
        schedule: what the driver takes after it.
    """

    train: float
    backward: float
    schedule: float

    @property
    def whole(self) -> float:
        """Of all of it."""
        return self.train + self.schedule


@dataclass
class Record:
    """What was found at each step.

    Attributes:
        saved: bytes that the step needs beside parameters and moments.
        seconds: none where times would say nothing.
        flops: none where nobody counts them.
    """

    held: list[Held] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[Seconds] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)


class Trainee(ABC):
    """One model in training.

    Attributes:
        has_times: whether its steps are timed.
        gradients_apart: whether gradients are held beside what is counted as saved.
    """

    has_times, gradients_apart = True, True

    def __init__(self, setup: Setup, start: Any, schedule: Schedule | None, moments: Moments) -> None:
        self.setup, self.schedule, self.record = setup, schedule, Record()
        self.begin(start, moments)

    @abstractmethod
    def begin(self, start: Any, moments: Moments) -> None:
        """Makes the model with these weights, or new ones, and its optimizer; enacts the first phase."""

    @abstractmethod
    def step(self, text: list[list[int]]) -> None:
        """One step, and on with the schedule; what is counted is counted off the clock."""


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and the seconds that it takes."""
    start = process_time()
    result = run()
    return result, process_time() - start
