"""One model, frozen in every way: time of a training step as ratios, bytes saved, peak memory.

Run as ``python -m benchmarks.steps MODEL ROUNDS [compiled]`` in a process of its own; writes JSON.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from time import process_time
from typing import Any

import torch

from benchmarks.memory import freezing_bytes, peak_of, saved_bytes
from benchmarks.models import MODELS
from benchmarks.ratios import Ratio
from benchmarks.ways import WAYS, Trainee, trainee

BASE, AGAIN = "by hand", "by hand again"
OURS = ("Frozen", "freeze")
LIMIT, LONG_STEP_MS = 1.03, 10.0
ROUNDS_OF_A_BUILD = 15


@dataclass(frozen=True)
class Case:
    """What was measured of one model.

    Attributes:
        step_ms: median of a step that is frozen by hand.
        times: way -> its time over the time by hand; the same model timed twice shows the noise.
        saved: way -> bytes saved for backward.
        peak: way -> bytes at the peak of freezing and a step.
    """

    model: str
    compiled: bool
    rounds: int
    step_ms: float
    times: dict[str, Ratio]
    saved: dict[str, int]
    peak: dict[str, int]

    @property
    def title(self) -> str:
        """The model's name, and whether it is compiled."""
        return f"{MODELS[self.model][0]}, {'compiled' if self.compiled else 'eager'}"

    @classmethod
    def of(cls, read: dict[str, Any]) -> Case:
        """A case from its JSON."""
        return cls(**{**read, "times": {way: Ratio(**ratio) for way, ratio in read["times"].items()}})

    def misses(self) -> list[str]:
        """The targets that are missed, in words."""
        found = []
        for way in OURS:
            if self.step_ms > LONG_STEP_MS and self.times[way].median > LIMIT:
                noise = self.times[AGAIN].median
                found.append(f"{way}: {self.times[way].median:.3f} x the time (by hand again: {noise:.3f})")
            if self.saved[way] != self.saved[BASE]:
                found.append(f"{way}: {self.saved[way] - self.saved[BASE]:+,} bytes saved")
            if self.peak[way] > self.peak[BASE]:
                found.append(f"{way}: {self.peak[way] - self.peak[BASE]:+,} bytes at the peak")
        return found


def interleaved(trained: dict[str, Trainee], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, way by way within each round; every round begins with another way."""
    seconds: dict[str, list[float]] = {way: [] for way in trained}
    order = list(trained)
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for way in order:
            start = process_time()
            trained[way].step()
            seconds[way].append(process_time() - start)
        order = order[1:] + order[:1]
    gc.enable()
    return seconds


def same_numbers(trained: dict[str, Trainee]) -> None:
    """All ways must compute the same, or their times compare different things."""
    losses = {way: t.losses for way, t in trained.items()}
    if any(values != losses[BASE] for values in losses.values()):
        raise RuntimeError(f"the ways do not compute the same: {losses}")


def peaks(name: str, trained: dict[str, Trainee]) -> dict[str, int]:
    """Bytes at the peak of freezing and of a step after it."""
    found = {}
    for way, one in trained.items():
        one.optimizer.zero_grad()
        freezing = freezing_bytes(name, way)
        found[way] = max(freezing.peak, freezing.held + peak_of(one.step))
    return found


def ready(name: str, order: Sequence[str], *, compiled: bool) -> dict[str, Trainee]:
    """A model for each way, built in this order and warmed up."""
    trained: dict[str, Trainee] = {}
    for way in order:
        trained[way] = trainee(name, way, compiled=compiled, like=next(iter(trained.values()), None))
    for one in trained.values():
        for _ in range(3):
            one.step()
    same_numbers(trained)
    return trained


def measure(name: str, rounds: int, *, compiled: bool) -> Case:
    """Measures one model.

    Where a model lies in memory can make its step 10 % slower, so an eager one is built several times.
    """
    ways, seconds = list(WAYS), defaultdict[str, list[float]](list)
    builds = 1 if compiled else max(1, rounds // ROUNDS_OF_A_BUILD)
    for build in range(builds):
        trained = ready(name, ways[build:] + ways[:build], compiled=compiled)
        for way, more in interleaved({**trained, AGAIN: trained[BASE]}, rounds // builds).items():
            seconds[way] += more
    return Case(
        model=name,
        compiled=compiled,
        rounds=rounds,
        step_ms=1000 * median(seconds[BASE]),
        times={way: Ratio.of(seconds[way], seconds[BASE]) for way in (AGAIN, *OURS)},
        saved={way: saved_bytes(trained[way].model, trained[way].loss) for way in ways},
        peak=peaks(name, trained),
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(asdict(measure(sys.argv[1], int(sys.argv[2]), compiled=sys.argv[3:] == ["compiled"]))))
