"""One part in several ways, side by side.

Run as ``python -m benchmarks.in_lean.run PART ROUNDS SIZE WAY...`` in a process of its own; writes JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

import torch

from benchmarks.in_lean.case import Case
from benchmarks.in_lean.parts import PARTS
from benchmarks.in_lean.trainee import Trainee, trainee
from benchmarks.in_lean.ways import AGAIN, BASE
from benchmarks.ratios import Ratio
from benchmarks.steps import interleaved


def measure(name: str, rounds: int, ways: Sequence[str], *, small: bool) -> Case:
    """Measures one part."""
    trained: dict[str, Trainee] = {}
    for way in ways:
        trained[way] = trainee(PARTS[name], way, small=small, like=trained.get(BASE))
    for one in trained.values():
        for _ in range(3):
            one.step()
    same = {way: identical(one, trained[BASE]) for way, one in trained.items()}
    seconds = interleaved({**trained, AGAIN: trained[BASE]}, rounds)
    return Case(
        part=name,
        rounds=rounds,
        step_ms=1000 * median(seconds[BASE]),
        times={way: Ratio.of(taken, seconds[BASE]) for way, taken in seconds.items() if way != BASE},
        saved={way: one.saved() for way, one in trained.items()},
        peak={way: one.peak() for way, one in trained.items()},
        same=same,
    )


def identical(one: Trainee, other: Trainee) -> bool:
    """Whether both have bitwise the same gradients."""
    return all(torch.equal(a, b) for a, b in zip(gradients(one), gradients(other), strict=True))


def gradients(one: Trainee) -> list[torch.Tensor]:
    """Of the parameters that train."""
    return [p.grad.view(torch.int32) for p in one.model.parameters() if p.grad is not None]


if __name__ == "__main__":
    torch.set_num_threads(1)
    part, rounds, size, *ways = sys.argv[1:]
    print(json.dumps(asdict(measure(part, int(rounds), ways, small=size == "small"))))
