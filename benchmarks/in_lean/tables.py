"""The numbers as a table in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.in_lean.case import Case
from benchmarks.in_lean.ways import AGAIN, BASE
from benchmarks.markdown import table


def beside_by_hand(cases: Sequence[Case]) -> str:
    """A row for each way of each part; goals in brackets."""
    headings = ("model", "way", "saved", "time", "peak", "gradients")
    return table(headings, [row for case in cases for row in rows(case)], words=2)


def rows(case: Case) -> Iterator[tuple[str, ...]]:
    """By hand in MiB and ms, everything else as ratios to it."""
    saved, peak = (f"{count[BASE] / 2**20:.1f} MiB" for count in (case.saved, case.peak))
    yield case.about.title, BASE, saved, f"{case.step_ms:.0f} ms", peak, ""
    yield "", AGAIN, "", str(case.times[AGAIN]), "", ""
    for way in case.saved:
        if way != BASE:
            yield "", way, *ratios(case, way), "the same bits" if case.same[way] else "rounded otherwise"


def ratios(case: Case, way: str) -> Iterator[str]:
    """Saved bytes, time and peak of one way, each with its goal."""
    goal = case.about.goals.get(way)
    measured = {
        "saved": f"{case.over_base(case.saved, way):.3f}",
        "time": str(case.times[way]),
        "peak": f"{case.over_base(case.peak, way):.3f}",
    }
    for what, ratio in measured.items():
        yield f"{ratio} (≤ {getattr(goal, what):.2f})" if goal else ratio
