"""Three ways to learn 5 to 9 after 0 to 4, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np

from frostline._core.reporting.report import Report
from frostline.demo.budget import Budget
from frostline.demo.framework import Framework, Learner, reads
from frostline.demo.scans import Lesson, Scans, lesson

Way = Literal["frozen trunk", "full fine-tuning", "from scratch"]
WAYS: tuple[Way, ...] = ("frozen trunk", "full fine-tuning", "from scratch")
Stage = Literal["learn 0 to 4", "learn 5 to 9, three ways", "freeze by hand", "learn 5 to 9 from the cache"]
Tick = Callable[[Stage], None]


@final
@dataclass(frozen=True)
class Trace:
    """What one way did in one run.

    Attributes:
        scores: accuracy on unseen scans of 5 to 9, from before the first step on.
        kept: accuracy on unseen scans of 0 to 4 when all is over, with the old head back on the trunk.
        seconds: what each step took.
        trainable_params: how many numbers moved.
        optimizer_bytes: what the optimizer keeps.
        saved_bytes: what a forward pass keeps for the backward pass.
    """

    scores: tuple[float, ...]
    kept: float
    seconds: tuple[float, ...]
    trainable_params: int
    optimizer_bytes: int
    saved_bytes: int


@final
@dataclass(frozen=True, eq=False)
class Run:
    """One run of the contest.

    Attributes:
        dealt: the scans.
        old: what knows 0 to 4 only.
        head: the new head that the ways with an old trunk begin with.
        before: its accuracy on unseen scans of 0 to 4.
        traces: what each way did.
        watched: the frozen tensors that were the same, byte for byte, at the end.
        report: what is frozen in the network with the frozen trunk.
    """

    dealt: Lesson
    old: Learner
    head: Any
    before: float
    traces: dict[Way, Trace]
    watched: frozenset[str]
    report: Report


def play(framework: Framework, budget: Budget, seed: int, tick: Tick) -> Run:
    """Plays one run; the scans and batches of a seed are the same in every framework.

    Raises:
        MovedError: the frozen trunk moved.
    """
    dice = np.random.default_rng(seed)
    dealt = lesson(dice, budget.labelled)
    old = framework.beginner(_seed(dice), budget.lr)
    _learn_old(old, dealt.old, budget, dice, tick)
    head = framework.new_head(_seed(dice))
    ways = _ways(old, head, framework.beginner(_seed(dice), budget.lr))
    scores, watched = _learn_new(ways, dealt, budget, dice, tick)
    before = reads(old, dealt.old_unseen)
    traces = {way: _trace(ways[way], scores[way], old.head, dealt, budget) for way in WAYS}
    return Run(dealt, old, head, before, traces, watched, ways["frozen trunk"].report())


def batches(scans: Scans, budget: Budget, dice: np.random.Generator) -> Iterator[Scans]:
    """As many batches as there are steps, drawn at random."""
    for _ in range(budget.steps):
        yield scans[dice.integers(len(scans), size=budget.batch)]


def _seed(dice: np.random.Generator) -> int:
    return int(dice.integers(2**31))


def _learn_old(learner: Learner, scans: Scans, budget: Budget, dice: np.random.Generator, tick: Tick) -> None:
    for _ in range(budget.epochs):
        places = dice.permutation(len(scans))
        # Whole batches, as a compiler would begin again for the rest.
        for batch in range(len(scans) // budget.batch):
            learner.step(scans[places[batch * budget.batch : (batch + 1) * budget.batch]])
        tick("learn 0 to 4")


def _ways(old: Learner, head: Any, beginner: Learner) -> dict[Way, Learner]:
    frozen = old.onto(head)
    frozen.freeze()
    return {"frozen trunk": frozen, "full fine-tuning": old.onto(head), "from scratch": beginner}


def _learn_new(
    ways: dict[Way, Learner], dealt: Lesson, budget: Budget, dice: np.random.Generator, tick: Tick
) -> tuple[dict[Way, list[float]], frozenset[str]]:
    scores = {way: [reads(ways[way], dealt.new_unseen)] for way in WAYS}
    with ways["frozen trunk"].guarded() as watched:
        for number, batch in enumerate(batches(dealt.new, budget, dice), start=1):
            # In turn, so that what slows the machine slows all three; rotated, so that none is always first.
            for place in range(len(WAYS)):
                ways[WAYS[(number + place) % len(WAYS)]].step(batch)
            if number in budget.looks:
                for way in WAYS:
                    scores[way].append(reads(ways[way], dealt.new_unseen))
            tick("learn 5 to 9, three ways")
    return scores, watched


def _trace(learner: Learner, scores: list[float], old_head: Any, dealt: Lesson, budget: Budget) -> Trace:
    return Trace(
        scores=tuple(scores),
        kept=reads(learner, dealt.old_unseen, head=old_head),
        seconds=tuple(learner.seconds),
        trainable_params=learner.trainable_params(),
        optimizer_bytes=learner.optimizer_bytes(),
        # A copy: a slice would bring the memory of all scans along.
        saved_bytes=learner.saved_bytes(dealt.new[np.arange(budget.batch)]),
    )
