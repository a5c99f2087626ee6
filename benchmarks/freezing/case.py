"""The measurements of one model, and the targets that they miss."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.timing import Ratio

BASE, AGAIN = "by hand", "by hand again"
OURS = ("Frozen", "freeze")
LIMIT, LONG_STEP_MS = 1.03, 10.0


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        step_ms: median of a step that is frozen by hand.
        times: way -> its time over the time by hand; the same model timed twice shows the noise.
        saved: way -> bytes saved for backward.
        peak: way -> bytes at the peak of freezing and a step.
    """

    title: str
    step_ms: float
    times: dict[str, Ratio]
    saved: dict[str, int]
    peak: dict[str, int]

    def misses(self) -> list[str]:
        """The missed targets, in words."""
        found = []
        for way in OURS:
            if self.step_ms > LONG_STEP_MS and self.times[way].median > LIMIT:
                noise = self.times[AGAIN].median
                found.append(f"{way}: {self.times[way].median:.3f} x the time (by hand again: {noise:.3f})")
            if self.saved[way] != self.saved[BASE]:
                found.append(f"{way}: {self.saved[way] - self.saved[BASE]:+,} bytes saved")
            if self.peak[way] > self.peak[BASE]:
                found.append(f"{way}: {self.peak[way] - self.peak[BASE]:+,} bytes at the peak")
        return [f"{self.title}: {miss}" for miss in found]

    def row(self) -> list[str]:
        """The case in a table."""
        times = (str(self.times[way]) for way in (AGAIN, *OURS))
        return [self.title, f"{self.step_ms:.0f}", *times, *self._beyond(self.saved), *self._beyond(self.peak)]

    def _beyond(self, count: dict[str, int]) -> tuple[str, str]:
        return f"{count[BASE] / 2**20:.2f}", " / ".join(f"{count[way] - count[BASE]:+,}" for way in OURS)
