"""The experiment: a network learns 0 to 4, and then 5 to 9 in five ways, with the same images, batches and steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import final

import numpy as np

from frostline._core.errors import MovedError
from frostline.demo.data import NEW, Split, one_of_each, split
from frostline.demo.learner import Framework, Learner
from frostline.demo.outcome import WAYS, Outcome, Result, Settings, Way


@final
@dataclass(frozen=True, eq=False)
class Run:
    """One repetition of the experiment; its fields become those of `Outcome`.

    Attributes:
        old: the learner that knows 0 to 4 only.
        learners: one for each way, trained.
        error: what the guard raised of the trunk that was frozen by hand.
    """

    images: Split
    old: Learner
    learners: dict[Way, Learner]
    curves: dict[Way, list[float]]
    seconds: dict[Way, list[float]]
    watched: frozenset[str]
    error: MovedError | None
    cached_bytes: int


def train(framework: Framework, settings: Settings, seed: int, progress: Callable[[], None]) -> Run:
    """Runs once. The images and batches of a seed are the same in every framework.

    Raises:
        MovedError: the frozen trunk moved.
    """
    rng = np.random.default_rng(seed)
    images = split(rng, settings.labelled)
    old = framework.new_learner(int(rng.integers(2**31)), settings.lr)
    for _ in range(settings.epochs):
        order = rng.permutation(len(images.old_train))
        # The rest is dropped: a compiler would begin again for a smaller batch.
        for batch in range(len(order) // settings.batch):
            old.step(images.old_train[order[batch * settings.batch : (batch + 1) * settings.batch]])
        progress()

    seed = int(rng.integers(2**31))
    learners = {way: old.with_new_head(seed) for way in WAYS}
    learners["from scratch"] = framework.new_learner(int(rng.integers(2**31)), settings.lr)
    learners["frozen trunk"].freeze()
    learners["frozen, from cache"].freeze()
    learners["frozen by hand"].freeze_by_hand()
    curves = {way: [learners[way].accuracy(images.new_test)] for way in WAYS}
    seconds: dict[Way, list[float]] = {way: [] for way in WAYS}
    error = None
    with tempfile.TemporaryDirectory() as folder:
        cached_step = learners["frozen, from cache"].cached(images.new_train, Path(folder) / "features")
        with learners["frozen trunk"].guarded() as watching, ExitStack() as by_hand:
            by_hand.enter_context(learners["frozen by hand"].guarded())
            for number in range(1, settings.steps + 1):
                indices = rng.integers(len(images.new_train), size=settings.batch)
                # In turn, so that a slow moment slows all of them; rotated, so that none is always first.
                for place in range(len(WAYS)):
                    way = WAYS[(number + place) % len(WAYS)]
                    start = perf_counter()
                    if way == "frozen, from cache":
                        cached_step(indices)
                    else:
                        learners[way].step(images.new_train[indices])
                    seconds[way].append(perf_counter() - start)
                if number in settings.tested_after:
                    for way in WAYS:
                        curves[way].append(learners[way].accuracy(images.new_test))
                progress()
            try:
                by_hand.close()
            except MovedError as moved:
                error = moved
        cached_bytes = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return Run(images, old, learners, curves, seconds, watching.paths, error, cached_bytes)


def perform(framework: Framework, settings: Settings, progress: Callable[[], None]) -> Outcome:
    """Does all of the work; the same numbers each time, but for the seconds. `progress` is called after each piece."""
    with framework.repeatable():
        runs = [train(framework, settings, seed, progress) for seed in range(settings.runs)]
        first = runs[0]
        images, learners, error = first.images.old_test, first.learners, first.error
        live, cached = (learners[way].scores(first.images.new_test) for way in ("frozen trunk", "frozen, from cache"))
        by_hand = learners["frozen by hand"].scores(images, first.old.head)
        return Outcome(
            framework=framework,
            settings=settings,
            results=tuple(_result(way, runs) for way in WAYS),
            old_before=tuple(run.old.accuracy(run.images.old_test) for run in runs),
            new_images=len(first.images.new_test),
            old_images=len(images),
            watched=tuple(sorted(first.watched)),
            message="" if error is None else str(error),
            moved=() if error is None else tuple(movement.path for movement in error.moved),
            changed_scores=int((first.old.scores(images) != by_hand).any(1).sum()),
            cost=learners["frozen trunk"].cost(first.images.new_train[np.arange(settings.batch)]),
            cached_bytes=first.cached_bytes,
            score_difference=float(np.abs(live - cached).max()),
            shared=framework.share_a_layer(one_of_each(NEW)),
            report=learners["frozen trunk"].report(),
        )


def _result(way: Way, runs: list[Run]) -> Result:
    old = tuple(run.learners[way].accuracy(run.images.old_test, run.old.head) for run in runs)
    return Result(
        way=way,
        curve=tuple(zip(*(run.curves[way] for run in runs), strict=True)),
        old_accuracy=None if way == "from scratch" else old,
        # The median: the first step may include a compiler's work.
        step_seconds=median(seconds for run in runs for seconds in run.seconds[way]),
    )
