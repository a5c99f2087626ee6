"""Times as ratios: steps that are compared take turns, and are compared round by round."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median, quantiles
from time import process_time


@dataclass(frozen=True)
class Ratio:
    """The median and the quartiles of the ratios pair by pair."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float], base: Sequence[float]) -> Ratio:
        """Each time over the time of the base in the same round."""
        return cls(*quantiles((s / b for s, b in zip(seconds, base, strict=True)), n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interleaved(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each step, way by way within each round, in every round in another order."""
    seconds: dict[str, list[float]] = {way: [] for way in steps}
    order, random = list(steps), Random(0)
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        random.shuffle(order)
        for way in order:
            seconds[way].append(time_of(steps[way]))
    gc.enable()
    return seconds


def time_of(run: Callable[[], object]) -> float:
    """Seconds of the process."""
    start = process_time()
    run()
    return process_time() - start


def median_time(run: Callable[[], object], runs: int) -> float:
    """The median of some times."""
    return median(time_of(run) for _ in range(runs))
