"""Ratios of times that were taken in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles


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
