"""Three ways to learn 5 to 9 after 0 to 4, side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, final

import torch

import frostline.torch as ft
from frostline._core.report import Report
from frostline.demo.budget import Budget
from frostline.demo.learner import Learner
from frostline.demo.network import Network, new_head
from frostline.demo.scans import Lesson, Scans, lesson

Way = Literal["frozen trunk", "full fine-tuning", "from scratch"]
WAYS: tuple[Way, ...] = ("frozen trunk", "full fine-tuning", "from scratch")
Stage = Literal["learn 0 to 4", "learn 5 to 9, three ways", "freeze by hand"]
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
    head: torch.nn.Linear
    before: float
    traces: dict[Way, Trace]
    watched: frozenset[str]
    report: Report


def play(budget: Budget, seed: int, tick: Tick) -> Run:
    """Plays one run.

    Raises:
        MovedError: the frozen trunk moved.
    """
    torch.manual_seed(seed)
    dice = torch.Generator().manual_seed(seed)
    dealt = lesson(dice, budget.labelled)
    old = _learn_old(dealt.old, budget, dice, tick)
    head = new_head()
    ways = _ways(old.network, head, budget.lr)
    scores, watched = _learn_new(ways, dealt, budget, dice, tick)
    before = old.accuracy(dealt.old_unseen)
    traces = {way: _trace(ways[way], scores[way], old.network.head, dealt, budget) for way in WAYS}
    frozen = ways["frozen trunk"]
    return Run(dealt, old, head, before, traces, watched, ft.report(frozen.network, frozen.optimizer))


def batches(scans: Scans, budget: Budget, dice: torch.Generator) -> Iterator[Scans]:
    """As many batches as there are steps, drawn at random."""
    for _ in range(budget.steps):
        yield scans[torch.randint(len(scans), (budget.batch,), generator=dice)]


def onto(old: Network, head: torch.nn.Linear) -> Network:
    """A copy of the old network with a copy of another head."""
    network = copy.deepcopy(old)
    network.head = copy.deepcopy(head)
    return network


def _learn_old(scans: Scans, budget: Budget, dice: torch.Generator, tick: Tick) -> Learner:
    learner = Learner(Network(), budget.lr)
    for _ in range(budget.epochs):
        for places in torch.randperm(len(scans), generator=dice).split(budget.batch):
            learner.step(scans[places])
        tick("learn 0 to 4")
    return learner


def _ways(old: Network, head: torch.nn.Linear, lr: float) -> dict[Way, Learner]:
    frozen = onto(old, head)
    ft.freeze(frozen, "trunk")
    networks = {"frozen trunk": frozen, "full fine-tuning": onto(old, head), "from scratch": Network()}
    return {way: Learner(networks[way], lr) for way in WAYS}


def _learn_new(
    ways: dict[Way, Learner], dealt: Lesson, budget: Budget, dice: torch.Generator, tick: Tick
) -> tuple[dict[Way, list[float]], frozenset[str]]:
    scores = {way: [ways[way].accuracy(dealt.new_unseen)] for way in WAYS}
    with ft.guard(ways["frozen trunk"].network) as watching:
        for number, batch in enumerate(batches(dealt.new, budget, dice), start=1):
            # In turn, so that what slows the machine slows all three; rotated, so that none is always first.
            for place in range(len(WAYS)):
                ways[WAYS[(number + place) % len(WAYS)]].step(batch)
            if number in budget.looks:
                for way in WAYS:
                    scores[way].append(ways[way].accuracy(dealt.new_unseen))
            tick("learn 5 to 9, three ways")
    return scores, watching.paths


def _trace(learner: Learner, scores: list[float], old_head: torch.nn.Linear, dealt: Lesson, budget: Budget) -> Trace:
    return Trace(
        scores=tuple(scores),
        kept=learner.accuracy(dealt.old_unseen, head=old_head),
        seconds=tuple(learner.seconds),
        trainable_params=learner.trainable_params(),
        optimizer_bytes=learner.optimizer_bytes(),
        # A copy: a slice would bring the memory of all scans along.
        saved_bytes=learner.saved_bytes(dealt.new[torch.arange(budget.batch)]),
    )
