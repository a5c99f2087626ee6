"""The demo in JAX: what it saves for backward, and what a step leaves alone."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

import frostline.jax as fj
from frostline.demo.data import Images
from frostline.demo.in_jax import FRAMEWORK
from frostline.demo.outcome import Outcome

IMAGES = Images(np.linspace(0, 1, 8 * 64, dtype=np.float32).reshape(8, 1, 8, 8), np.arange(8) % 5)


@pytest.fixture
def learner() -> Iterator[Any]:
    with FRAMEWORK.repeatable():
        # As in the demo, so that nothing is compiled twice.
        yield FRAMEWORK.new_learner(0, 3e-3)


def bits(tree: object) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("name", ["jax"], indirect=True)
def test_what_each_way_saves_for_backward(outcome: Outcome) -> None:
    # Of 8 images: three tensors of the size of each convolution's output, and where they are above zero; four numbers
    # a channel; what the poolings give. Of an image: 5 scores, two sums, a label and whether it counts.
    of_the_blocks = 8 * (3 * 4 + 1) * (1024 + 2048 + 512) + 4 * 4 * (16 + 32 + 32) + 8 * 4 * 512
    of_the_head = 8 * (4 * 128 + 4 * 5 + 4 + 4 + 1)
    assert outcome.cost.now.saved_bytes == of_the_head == 4_328
    assert outcome.cost.all_trained.saved_bytes == of_the_blocks + of_the_head == 394_728


def test_what_is_not_written_to_stays(learner: Any) -> None:
    before = bits((learner.network, learner.statistics, learner.state))
    learner.cost(IMAGES)
    learner.scores(IMAGES)
    assert bits((learner.network, learner.statistics, learner.state)) == before


def test_a_step_counts_once(learner: Any) -> None:
    learner.step(IMAGES)
    assert learner.state.inner[0].count == 1


def test_a_frozen_trunk_is_in_evaluation_mode_inside_of_jit(learner: Any) -> None:
    free, frozen = learner.with_new_head(1), learner
    frozen.freeze()
    before = bits(learner.statistics)
    for each in (free, frozen):
        each.step(IMAGES)
    assert bits(frozen.statistics) == before
    # The negative control.
    assert all(one != other for one, other in zip(bits(free.statistics), before, strict=True))


def test_learners_that_share_arrays_learn_by_themselves(learner: Any) -> None:
    other = learner.with_new_head(1)
    before = bits(learner.network)
    start = bits(other.network)
    other.step(IMAGES)
    assert bits(learner.network) == before
    moved = [one != another for one, another in zip(bits(other.network), start, strict=True)]
    # 11 parameters, and 3 modes.
    assert (len(moved), moved.count(True), len(fj.trainable(other.network))) == (14, 11, 11)
