"""What was measured of one part, and which goals it misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.in_lean.parts import PARTS, Part
from benchmarks.in_lean.ways import AGAIN, BASE
from benchmarks.ratios import Ratio


@dataclass(frozen=True)
class Case:
    """One part, in several ways.

    Attributes:
        part: its key.
        rounds: how often each step was timed.
        step_ms: median of a step that is frozen by hand.
        times: way -> its time over the time by hand; by hand twice shows the noise.
        saved: way -> bytes that a forward pass leaves to the backward pass.
        peak: way -> bytes at the peak of a step.
        same: way -> whether its gradients are bitwise those by hand.
    """

    part: str
    rounds: int
    step_ms: float
    times: dict[str, Ratio]
    saved: dict[str, int]
    peak: dict[str, int]
    same: dict[str, bool]

    @classmethod
    def of(cls, read: dict[str, Any]) -> Case:
        """A case from its JSON."""
        return cls(**{**read, "times": {way: Ratio(**ratio) for way, ratio in read["times"].items()}})

    @property
    def about(self) -> Part:
        """What was measured."""
        return PARTS[self.part]

    def over_base(self, count: dict[str, int], way: str) -> float:
        """Bytes over those by hand."""
        return count[way] / count[BASE]

    def misses(self) -> list[str]:
        """The goals that are missed, in words."""
        goals = {way: goal for way, goal in self.about.goals.items() if way in self.saved}
        return [miss for way, goal in goals.items() for miss in self._misses(way, goal)]

    def _misses(self, way: str, goal: Any) -> list[str]:
        measured = {
            "saved": self.over_base(self.saved, way),
            "time": self.times[way].median,
            "peak": self.over_base(self.peak, way),
        }
        # Goals are given with two digits.
        found = [
            f"{way}: {value:.3f} x the {what}, goal {getattr(goal, what):.2f} (by hand again: {self.times[AGAIN]})"
            for what, value in measured.items()
            if round(value, 2) > getattr(goal, what)
        ]
        exact = way != "folded"
        return found + ([f"{way}: other gradients than by hand"] if exact and not self.same[way] else [])
