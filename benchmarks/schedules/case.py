"""The measurements of one way to train, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report import table
from benchmarks.schedules.setup import AGAIN
from benchmarks.timing import Ratio


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
        schedule_ms: the schedule's part of these, on average.
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
        title: the schedule, and whether moments of what is frozen are released or kept.
        way: the schedule alone, or none.
        optimizer: moments of what trains.
        shelved: moments of what is frozen.
        gradients: as backward leaves them.
        saved: for backward in PyTorch; all temporary memory of a compiled step in JAX, gradients among it.
        total: parameters, moments, gradients and what is saved, at the same step.
        flops: of a compiled step, in JAX.
        times: in PyTorch.
        first: loss at the first step.
        last: mean loss of the last tenth of the steps.
        misses: the first step whose bytes are not those that were predicted, in words.
    """

    title: str
    way: str
    optimizer: Count
    shelved: Count
    gradients: Count
    saved: Count
    total: Count
    flops: Count | None
    times: Times | None
    first: float
    last: float
    misses: list[str]

    @property
    def counts(self) -> list[Count]:
        """All that is held, in the order of the table."""
        flops = [self.flops] if self.flops else []
        return [self.optimizer, self.shelved, self.gradients, self.saved, self.total, *flops]


def bytes_held(cases: Sequence[Case]) -> str:
    """A row for each way: ratios to full training, whose own row has MiB and GFLOP."""
    full = cases[0]
    # Shelved moments are compared with those of full training.
    bases = [full.optimizer, full.optimizer, *full.counts[2:]]
    rows = []
    for case in cases:
        if case is full:
            shown = [f"{count.peak / 2**20:.2f} MiB" for count in full.counts[:5]]
            shown += [f"{count.peak / 1e9:.2f} GFLOP" for count in full.counts[5:]]
        else:
            pairs = (mine.over(base) for mine, base in zip(case.counts, bases, strict=True))
            shown = [" / ".join(f"{ratio:.3f}" for ratio in pair) for pair in pairs]
        loss = f"{case.first:.2f} to {case.last:.2f}"
        if case.way != AGAIN:
            rows.append((case.title, *shown, "missed" if case.misses else "exact", loss))
    parts = (
        "",
        "moments",
        "moments kept",
        "gradients",
        "saved",
        "all, with parameters",
        *(["FLOPs"] if full.flops else []),
    )
    return table((*parts, "as predicted", "loss"), rows, title="Bytes over those of full training, peak / mean")


def times(cases: Sequence[Case]) -> str:
    """A row for each way."""
    headings = ("", "ms", "all steps", "step by step", "all backward passes", "schedule, ms a step")
    rows = [
        (case.title, f"{t.ms:.1f}", f"{t.total:.3f}", str(t.step), f"{t.backward:.3f}", f"{t.schedule_ms:.2f}")
        for case in cases
        if (t := case.times)
    ]
    return table(headings, rows, title="Time over that of full training")
