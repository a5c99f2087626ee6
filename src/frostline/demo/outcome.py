"""The facts that the demo finds, as values and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline.demo.learner import Framework, SharedLayer

Way = Literal["frozen trunk", "frozen, from cache", "full fine-tuning", "from scratch", "frozen by hand"]
WAYS: tuple[Way, ...] = ("frozen trunk", "frozen, from cache", "full fine-tuning", "from scratch", "frozen by hand")


@final
@dataclass(frozen=True)
class Settings:
    """How much is learned, the same in every way; at this learning rate accuracy has nearly levelled off at the end.

    Attributes:
        labelled: labelled images of each of 5 to 9.
        tested_after: the steps on 5 to 9 after which accuracy is measured; the last one ends the training.
    """

    runs: int = 5
    epochs: int = 5
    labelled: int = 10
    tested_after: tuple[int, ...] = (5, 10, 20, 40, 60, 90, 120)
    batch: int = 32
    lr: float = 3e-3

    @property
    def steps(self) -> int:
        """The steps in which each way learns 5 to 9."""
        return self.tested_after[-1]


Runs = tuple[float, ...]  # one number from each run


@final
@dataclass(frozen=True)
class Result:
    """What one way to learn 5 to 9 achieved.

    Attributes:
        curve: accuracy on test images of 5 to 9, before the first step and whenever it was measured.
        old_accuracy: accuracy on test images of 0 to 4 at the end, with the old head back on; None if from scratch.
        step_seconds: the median time of a step.
    """

    way: Way
    curve: tuple[Runs, ...]
    old_accuracy: Runs | None
    step_seconds: float

    @property
    def accuracy(self) -> Runs:
        """Accuracy on test images of 5 to 9 at the end."""
        return self.curve[-1]


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """All that the demo shows. What is not of all runs is of the first.

    Attributes:
        old_before: accuracy on test images of 0 to 4 before 5 to 9 were learned.
        new_images, old_images: how many test images there are of 5 to 9 and of 0 to 4.
        watched: the names of the tensors that the guard found unmoved.
        message: what the guard said of the trunk that was frozen by hand; empty if nothing moved.
        moved: the names of what moved in it.
        changed_scores: how many of `old_images` that trunk gives other scores than before, if only in the last bit.
        cached_bytes: the size of the feature cache.
        score_difference: how far scores of the head that learned from the cache are from those of the one that learned
            live, at most; 0 is bitwise.
    """

    framework: Framework
    settings: Settings
    results: tuple[Result, ...]
    old_before: Runs
    new_images: int
    old_images: int
    watched: tuple[str, ...]
    message: str
    moved: tuple[str, ...]
    changed_scores: int
    cost: Cost
    cached_bytes: int
    score_difference: float
    shared: SharedLayer
    report: Report

    def __getitem__(self, way: Way) -> Result:
        """The result of one way."""
        return self.results[WAYS.index(way)]

    def to_json(self) -> str:
        """The facts as one JSON document."""

        def plain(value: Any) -> Any:
            if isinstance(value, Framework):
                return value.name
            return value.to_dict() if isinstance(value, Cost | Report) else asdict(value)

        return json.dumps(vars(self), indent=2, default=plain)
