"""What the demo found out: numbers only, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median, stdev
from typing import final

from frostline._core.reporting.report import Report
from frostline.demo.budget import Budget
from frostline.demo.by_hand import ByHand
from frostline.demo.contest import WAYS, Run, Trace, Way
from frostline.demo.limits import Limits
from frostline.demo.sharing import Sharing
from frostline.demo.words import Words


@final
@dataclass(frozen=True)
class Spread:
    """One number from each run.

    Example:
        >>> str(Spread((0.94, 0.96)))
        '95.0 ± 1.4 %'
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Their mean."""
        return fmean(self.values)

    @property
    def deviation(self) -> float:
        """Their standard deviation; 0 if there is one run only."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def percent(self) -> str:
        """Mean and standard deviation in percent."""
        return f"{100 * self.mean:.1f} ± {100 * self.deviation:.1f}"

    def __str__(self) -> str:
        return f"{self.percent} %"

    def to_dict(self) -> dict[str, object]:
        """As data."""
        return {"mean": self.mean, "standard_deviation": self.deviation, "runs": list(self.values)}


@final
@dataclass(frozen=True)
class Score:
    """What one way did in all runs; the fields are those of `Trace`."""

    way: Way
    curve: tuple[Spread, ...]
    kept: Spread
    step_seconds: float
    trainable_params: int
    optimizer_bytes: int
    saved_bytes: int

    @property
    def accuracy(self) -> Spread:
        """On unseen scans, at the end."""
        return self.curve[-1]

    def to_dict(self) -> dict[str, object]:
        """As data."""
        return {
            "way": self.way,
            "accuracy": self.accuracy.to_dict(),
            "accuracy_on_0_to_4_afterwards": None if self.way == "from scratch" else self.kept.to_dict(),
            "median_step_seconds": self.step_seconds,
            "trainable_params": self.trainable_params,
            "optimizer_bytes": self.optimizer_bytes,
            "saved_for_backward_bytes": self.saved_bytes,
            "mean_accuracy_by_look": [spread.mean for spread in self.curve],
        }


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """All that the demo shows.

    Attributes:
        words: those of the framework.
        budget: the set-up.
        scores: one for each way, in the order of `WAYS`.
        before: accuracy on unseen scans of 0 to 4 before 5 to 9 were learnt.
        unseen: how many scans of 5 to 9 the accuracy is measured on.
        unseen_old: how many of 0 to 4.
        watched: the frozen tensors that the guard watched, by name.
        by_hand: the negative control.
        limits: what a step costs, could cost, and costs from the cache.
        sharing: the layer with two uses.
        report: what is frozen.
    """

    words: Words
    budget: Budget
    scores: tuple[Score, ...]
    before: Spread
    unseen: int
    unseen_old: int
    watched: tuple[str, ...]
    by_hand: ByHand
    limits: Limits
    sharing: Sharing
    report: Report

    def to_dict(self) -> dict[str, object]:
        """As JSON-able data."""
        return {
            "framework": self.words.framework,
            "budget": asdict(self.budget),
            "unseen_scans": {"5_to_9": self.unseen, "0_to_4": self.unseen_old},
            "accuracy_on_0_to_4_before": self.before.to_dict(),
            "ways": [score.to_dict() for score in self.scores],
            "proof": {
                "bitwise_equal": list(self.watched),
                "steps": self.budget.steps * self.budget.runs,
                "frozen_by_hand": asdict(self.by_hand),
            },
            "limits": self.limits.to_dict(),
            "sharing": asdict(self.sharing),
            "report": self.report.to_dict(),
        }


def summed_up(
    words: Words, budget: Budget, runs: Sequence[Run], by_hand: ByHand, limits: Limits, sharing: Sharing
) -> Outcome:
    """The outcome of some runs."""
    first = runs[0]
    return Outcome(
        words=words,
        budget=budget,
        scores=tuple(_score(way, [run.traces[way] for run in runs]) for way in WAYS),
        before=Spread(tuple(run.before for run in runs)),
        unseen=len(first.dealt.new_unseen),
        unseen_old=len(first.dealt.old_unseen),
        watched=tuple(sorted(first.watched)),
        by_hand=by_hand,
        limits=limits,
        sharing=sharing,
        report=first.report,
    )


def _score(way: Way, traces: Sequence[Trace]) -> Score:
    looks = zip(*(trace.scores for trace in traces), strict=True)
    return Score(
        way=way,
        curve=tuple(Spread(look) for look in looks),
        kept=Spread(tuple(trace.kept for trace in traces)),
        step_seconds=median(taken for trace in traces for taken in trace.seconds),
        trainable_params=traces[0].trainable_params,
        optimizer_bytes=traces[0].optimizer_bytes,
        saved_bytes=traces[0].saved_bytes,
    )
