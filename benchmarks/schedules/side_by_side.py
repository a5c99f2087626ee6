"""All ways side by side: step by step, each round in another order."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean, median
from time import process_time
from typing import Any, TypeVar

from benchmarks.schedules.case import Case, Count, Times
from benchmarks.schedules.setup import (
    AGAIN,
    FULL,
    RELEASE,
    VALUE,
    Held,
    Moments,
    Setup,
    batches,
    predicted,
    trained_at,
    ways,
)
from benchmarks.timing import Ratio
from frostline.schedules import Schedule

T = TypeVar("T")


@dataclass(frozen=True)
class Seconds:
    """One step: forward, backward and update; of these, backward; and the driver of the schedule after it."""

    train: float
    backward: float
    schedule: float


@dataclass
class Record:
    """The measurements of each step.

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
        has_gradients_beside: whether gradients are held beside the bytes that are counted as saved.
    """

    has_times, has_gradients_beside = True, True

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
    """The result of a call, and its seconds."""
    start = process_time()
    result = run()
    return result, process_time() - start


def measured(setup: Setup, start: Callable[[Setup], Any], kind: type[Trainee]) -> list[Case]:
    """Measures all ways, from the same weights."""
    weights = start(setup)
    trainees = {
        (way, moments): kind(setup, weights, schedule, moments)
        for way, moments, schedule in ways(setup)
        if way != AGAIN or kind.has_times
    }
    order = list(trainees.values())
    gc.collect()
    gc.disable()
    for text in batches(setup, changed=True):
        for one in order:
            one.step(text)
        order = order[1:] + order[:1]
    gc.enable()
    full = trainees[FULL, RELEASE]
    return [case(way, moments, one, full) for (way, moments), one in trainees.items()]


def case(way: str, moments: Moments, one: Trainee, full: Trainee) -> Case:
    """One way beside full training."""
    setup, record = one.setup, one.record
    held, saved = record.held, record.saved
    gradients = [h.gradients if one.has_gradients_beside else 0 for h in held]
    fixed = [VALUE * setup.parameters + h.optimizer + h.shelved for h in held]
    return Case(
        title=way if way in (FULL, AGAIN) else f"{way}, {moments}",
        way=way,
        optimizer=Count.of([h.optimizer for h in held]),
        shelved=Count.of([h.shelved for h in held]),
        gradients=Count.of([h.gradients for h in held]),
        saved=Count.of(saved),
        total=Count.of([sum(parts) for parts in zip(fixed, gradients, saved, strict=True)]),
        flops=Count.of(record.flops) if record.flops else None,
        times=times(one, full) if record.seconds else None,
        first=record.losses[0],
        last=mean(record.losses[-(setup.steps // 10) :]),
        misses=misses(held, predicted(setup, one.schedule, moments)),
    )


def times(one: Trainee, full: Trainee) -> Times:
    """Beside full training."""
    mine, theirs = ([s.train + s.schedule for s in trained.record.seconds] for trained in (one, full))
    backward, of_full = (sum(s.backward for s in trained.record.seconds) for trained in (one, full))
    return Times(
        total=sum(mine) / sum(theirs),
        step=Ratio.of(mine, theirs),
        backward=backward / of_full,
        backward_of=backward_of(one, full),
        ms=1000 * median(mine),
        schedule_ms=1000 * mean(s.schedule for s in one.record.seconds),
    )


def backward_of(one: Trainee, full: Trainee) -> dict[str, float]:
    """For each block that ever trains alone, the time of backward over that of full training."""
    times = defaultdict[str, list[float]](list)
    for step, (mine, theirs) in enumerate(zip(one.record.seconds, full.record.seconds, strict=True)):
        blocks = trained_at(one.setup, one.schedule, step)
        if len(blocks) == 1:
            times[blocks[0]].append(mine.backward / theirs.backward)
    return {block: median(ratios) for block, ratios in times.items()}


def misses(held: list[Held], predictions: list[Held]) -> list[str]:
    """The first step at which something else is held than was predicted, in words."""
    for step, (found, wanted) in enumerate(zip(held, predictions, strict=True)):
        if found != wanted:
            return [f"step {step} holds {found}, predicted was {wanted}"]
    return []
