"""The demo in JAX: what it costs, and what a step leaves alone."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

import frostline.jax as fj
from frostline.demo.outcome import Outcome
from frostline.demo.scans import Scans
from frostline.demo.with_jax.learner import Learner, alone, beginner

SCANS = Scans(np.linspace(0, 1, 8 * 64, dtype=np.float32).reshape(8, 1, 8, 8), np.arange(8) % 5)


@pytest.fixture
def learner() -> Iterator[Learner]:
    with alone():
        # As in the demo, so that nothing is compiled twice.
        yield beginner(seed=0, lr=3e-3)


def bits(tree: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", ["jax"], indirect=True)
def test_what_each_way_costs(outcome: Outcome) -> None:
    frozen, full, scratch = outcome.scores
    # AdamW keeps two moments of 4 bytes a value, and one count of 4 bytes.
    assert [score.optimizer_bytes for score in outcome.scores] == [5_164, 118_188, 118_188]
    # Of a scan: 128 features, 5 scores and their sum, a label, and whether it counts.
    of_a_head = 4 * 128 + 4 * 5 + 4 + 4 + 1
    # Pixels; what each convolution gives: centred for its variance, centred, zeros, without what is below zero, and
    # where that was; what goes into the third convolution.
    of_a_trunk = 4 * 64 + (4 * 4 + 1) * (1024 + 2048 + 512) + 4 * 512
    assert frozen.saved_bytes == 8 * of_a_head + 4
    # Of all scans: six numbers for each channel, and two for each batch norm.
    assert full.saved_bytes == scratch.saved_bytes == 8 * (of_a_trunk + of_a_head) + 6 * 4 * 80 + 3 * 5 + 4


def test_what_is_not_written_to_stays(learner: Learner) -> None:
    before = bits((learner.network, learner.statistics, learner.state))
    learner.saved_bytes(SCANS)
    learner.scores(SCANS)
    assert bits((learner.network, learner.statistics, learner.state)) == before


def test_the_step_that_is_taken_to_compile_is_dropped(learner: Learner) -> None:
    learner.step(SCANS)
    assert learner.state.inner[0].count == 1
    assert len(learner.seconds) == 1


def test_a_frozen_trunk_is_in_evaluation_mode_inside_of_jit(learner: Learner) -> None:
    free, frozen = learner.onto(learner.head), learner
    frozen.freeze()
    before = bits(learner.statistics)
    for each in (free, frozen):
        each.step(SCANS)
    assert bits(frozen.statistics) == before
    # The negative control.
    assert all(one != other for one, other in zip(bits(free.statistics), before, strict=True))


def test_learners_that_share_arrays_learn_alone(learner: Learner) -> None:
    other = learner.onto(learner.head)
    before = bits(learner.network)
    other.step(SCANS)
    assert bits(learner.network) == before
    moved = [one != another for one, another in zip(bits(other.network), before, strict=True)]
    # 11 parameters, and 3 modes.
    assert moved.count(True) == len(fj.trainable(other.network)) == 11
