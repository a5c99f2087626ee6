"""The negative control: a trunk frozen as it is commonly done by hand, under the same guard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from frostline._core.errors import MovedError
from frostline.demo.budget import Budget
from frostline.demo.contest import Run, Tick, batches
from frostline.demo.framework import Learner, accuracy


@final
@dataclass(frozen=True)
class ByHand:
    """What became of a trunk that was frozen by hand.

    Attributes:
        message: what the guard said; empty if nothing moved.
        moved: the names of what moved.
        before: accuracy on unseen scans of 0 to 4 before.
        after: the same at the end, with the old head back on.
        changed: how many of those scans get other scores than before, if only in the last bit.
    """

    message: str
    moved: tuple[str, ...]
    before: float
    after: float
    changed: int


def freeze_by_hand(run: Run, budget: Budget, tick: Tick) -> ByHand:
    """Learns 5 to 9 on the trunk of a run, frozen by hand."""
    learner = run.old.onto(run.head)
    learner.freeze_by_hand()
    error = _caught(learner, run, budget, tick)
    moved = tuple(movement.path for movement in error.moved) if error is not None else ()
    scans = run.dealt.old_unseen
    before, after = run.old.scores(scans), learner.scores(scans, head=run.old.head)
    changed = int((before != after).any(1).sum())
    return ByHand(str(error or ""), moved, run.before, accuracy(after, scans), changed)


def _caught(learner: Learner, run: Run, budget: Budget, tick: Tick) -> MovedError | None:
    dice = np.random.default_rng(0)
    try:
        with learner.guarded():
            for batch in batches(run.dealt.new, budget, dice):
                learner.step(batch)
                tick("freeze by hand")
    except MovedError as error:
        return error
    return None
