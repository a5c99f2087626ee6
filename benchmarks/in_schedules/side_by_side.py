"""All ways side by side: step by step, each round in another order."""

from __future__ import annotations

import gc
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from statistics import mean, median
from typing import Any

from benchmarks.in_schedules.case import Case, Count, Times, misses
from benchmarks.in_schedules.language import batches
from benchmarks.in_schedules.setup import QUICK, SETUPS, VALUE, Setup
from benchmarks.in_schedules.trainee import Trainee
from benchmarks.in_schedules.ways import AGAIN, FULL, RELEASE, Moments, foretold, trained_at, ways
from benchmarks.ratios import Ratio

Trainees = dict[tuple[str, Moments], Trainee]


def written(framework: str, start: Callable[[Setup], Any], kind: type[Trainee], *, quick: bool) -> str:
    """Measures all ways, from the same weights; as JSON."""
    setup = QUICK if quick else SETUPS[framework]
    weights = start(setup)
    trainees = {
        (way, moments): kind(setup, weights, schedule, moments)
        for way, moments, schedule in ways(setup)
        if way != AGAIN or kind.has_times
    }
    interleaved(trainees, setup)
    full = trainees[FULL, RELEASE]
    return json.dumps([asdict(case(*name, one, full)) for name, one in trainees.items()])


def interleaved(trainees: Trainees, setup: Setup) -> None:
    """Trains them all on the same texts."""
    order = list(trainees.values())
    gc.collect()
    gc.disable()
    for text in batches(setup, changed=True):
        for one in order:
            one.step(text)
        order = order[1:] + order[:1]
    gc.enable()


def case(way: str, moments: Moments, one: Trainee, full: Trainee) -> Case:
    """What was measured of one of them, beside full training."""
    setup, record = one.setup, one.record
    held, saved = record.held, record.saved
    gradients = [h.gradients if one.gradients_apart else 0 for h in held]
    fixed = [VALUE * setup.parameters + h.optimizer + h.kept for h in held]
    return Case(
        way=way,
        moments=moments,
        optimizer=Count.of([h.optimizer for h in held]),
        kept=Count.of([h.kept for h in held]),
        gradients=Count.of([h.gradients for h in held]),
        saved=Count.of(saved),
        whole=Count.of([sum(parts) for parts in zip(fixed, gradients, saved, strict=True)]),
        flops=Count.of(record.flops) if record.flops else None,
        times=times(one, full) if record.seconds else None,
        first=record.losses[0],
        last=mean(record.losses[-(setup.steps // 10) :]),
        misses=misses(held, foretold(setup, one.schedule, moments)),
    )


def times(one: Trainee, full: Trainee) -> Times:
    """Beside full training."""
    mine, theirs = ([s.whole for s in trained.record.seconds] for trained in (one, full))
    backward, of_full = (sum(s.backward for s in trained.record.seconds) for trained in (one, full))
    return Times(
        total=sum(mine) / sum(theirs),
        step=Ratio.of(mine, theirs),
        backward=backward / of_full,
        backward_of=backward_of(one, full),
        ms=1000 * median(mine),
        schedule_ms=1000 * mean(s.schedule for s in one.record.seconds),
    )


def backward_of(one: Trainee, full: Trainee) -> dict[str, float]:
    """For each block that ever trains alone, the time of backward over that of full training."""
    times = defaultdict[str, list[float]](list)
    for step, (mine, theirs) in enumerate(zip(one.record.seconds, full.record.seconds, strict=True)):
        blocks = trained_at(one.setup, one.schedule, step)
        if len(blocks) == 1:
            times[blocks[0]].append(mine.backward / theirs.backward)
    return {block: median(ratios) for block, ratios in times.items()}
