"""What was measured of one way to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.in_schedules.ways import AGAIN, FULL, Held
from benchmarks.ratios import Ratio


@dataclass(frozen=True)
class Count:
    """Over the steps of a run."""

    peak: float
    mean: float

    @classmethod
    def of(cls, counts: Sequence[float]) -> Count:
        """Of the count at each step."""
        return cls(max(counts), sum(counts) / len(counts))

    def over(self, other: Count) -> tuple[float, float]:
        """As ratios."""
        return self.peak / other.peak, self.mean / other.mean


@dataclass(frozen=True)
class Times:
    """Over those of full training.

    Attributes:
        total: of all steps.
        step: step by step.
        backward: of all backward passes.
        backward_of: block -> of those at which it trains alone.
        ms: median milliseconds of a step.
        schedule_ms: of which the schedule takes so many on average.
    """

    total: float
    step: Ratio
    backward: float
    backward_of: dict[str, float]
    ms: float
    schedule_ms: float


@dataclass(frozen=True)
class Case:
    """One way to train.

    Attributes:
        way: the schedule, or none.
        moments: what happens to those of what is frozen.
        optimizer: moments of what trains.
        kept: moments of what is frozen.
        gradients: as backward leaves them.
        saved: for backward in PyTorch; all temporary memory of a compiled step in JAX, gradients among it.
        whole: parameters, moments, gradients and what is saved, at the same step.
        flops: of a compiled step, in JAX.
        times: in PyTorch.
        first: loss at the first step.
        last: mean loss of the last tenth of the steps.
        misses: where bytes are not those that were foretold.
    """

    way: str
    moments: str
    optimizer: Count
    kept: Count
    gradients: Count
    saved: Count
    whole: Count
    flops: Count | None
    times: Times | None
    first: float
    last: float
    misses: list[str]

    @property
    def title(self) -> str:
        """With what happens to moments, where there is a choice."""
        return self.way if self.way in (FULL, AGAIN) else f"{self.way}, {self.moments}"

    @classmethod
    def of(cls, read: dict[str, Any]) -> Case:
        """A case from its JSON."""
        counts = {name: Count(**value) for name, value in read.items() if isinstance(value, dict) and "peak" in value}
        times = read["times"] and Times(**{**read["times"], "step": Ratio(**read["times"]["step"])})
        return cls(**{**read, **counts, "times": times})


def misses(held: Sequence[Held], foretold: Sequence[Held]) -> list[str]:
    """The first step at which something else is held than was foretold, in words."""
    for step, (found, wanted) in enumerate(zip(held, foretold, strict=True)):
        if found != wanted:
            return [f"step {step} holds {found}, foretold was {wanted}"]
    return []
