"""What the frozen trunk costs, what it could cost at least, and what is left of it when its features are cached."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import final

import numpy as np

from frostline._core.reporting.cost import Cost
from frostline.demo.budget import Budget
from frostline.demo.contest import Run, Tick


@final
@dataclass(frozen=True, eq=False)
class Limits:
    """What a step costs.

    Attributes:
        cost: the account of a step with the frozen trunk: as it is, with everything trained, and at the limit.
        full_seconds: median of a step that trains everything.
        live_seconds: median of a step with the frozen trunk.
        cached_seconds: median of a step that reads what the trunk says from the cache.
        cached_bytes: what is stored for all labelled scans.
        other: how many numbers of the head are others after learning from the cache than after learning live.
        values: how many there are.
        apart: by how much at most.
    """

    cost: Cost
    full_seconds: float
    live_seconds: float
    cached_seconds: float
    cached_bytes: int
    other: int
    values: int
    apart: float

    def to_dict(self) -> dict[str, object]:
        """As JSON-able data."""
        return {
            "cost": self.cost.to_dict(),
            "median_step_seconds": {
                "all trained": self.full_seconds,
                "frozen": self.live_seconds,
                "from the cache": self.cached_seconds,
            },
            "cached_bytes": self.cached_bytes,
            "head_values_other_than_live": self.other,
            "head_values": self.values,
            "largest_difference": self.apart,
        }


def explored(run: Run, budget: Budget, tick: Tick) -> Limits:
    """Learns 5 to 9 on the trunk of a run once more: with everything trained, frozen, and from the cache, in turn."""
    full, live, from_cache = (run.old.onto(run.head) for _ in range(3))
    live.freeze()
    from_cache.freeze()
    scans = run.dealt.new
    with tempfile.TemporaryDirectory() as folder:
        cached = from_cache.cached(scans, Path(folder) / "features")
        dice = np.random.default_rng(0)
        for _ in range(budget.steps):
            places = dice.integers(len(scans), size=budget.batch)
            full.step(scans[places])
            live.step(scans[places])
            cached.step(places)
            tick("learn 5 to 9 from the cache")
        stored = cached.nbytes
    mine, theirs = live.head_values(), from_cache.head_values()
    return Limits(
        cost=live.cost(scans[np.arange(budget.batch)]),
        full_seconds=median(full.seconds),
        live_seconds=median(live.seconds),
        cached_seconds=median(cached.seconds),
        cached_bytes=stored,
        other=int((mine.view(np.uint32) != theirs.view(np.uint32)).sum()),
        values=len(mine),
        apart=float(np.abs(mine - theirs).max()),
    )
