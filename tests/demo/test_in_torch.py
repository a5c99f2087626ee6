"""The demo in PyTorch: what it costs, and what it leaves alone."""

import numpy as np
import pytest
import torch

from frostline.demo import perform
from frostline.demo.budget import Budget
from frostline.demo.framework import framework_of
from frostline.demo.outcome import Outcome
from frostline.demo.scans import Scans
from frostline.demo.with_torch.learner import Learner
from frostline.demo.with_torch.network import Network


@pytest.mark.parametrize("name", ["torch"], indirect=True)
def test_what_each_way_costs(outcome: Outcome) -> None:
    frozen, full, scratch = outcome.scores
    # AdamW keeps two moments of 4 bytes a value, and a count of 4 bytes a tensor: 2 in the head, 11 in all.
    assert (frozen.trainable_params, frozen.optimizer_bytes) == (645, 2 * 4 * 645 + 4 * 2)
    assert (full.trainable_params, full.optimizer_bytes) == (14_773, 2 * 4 * 14_773 + 4 * 11)
    assert (scratch.trainable_params, scratch.optimizer_bytes) == (full.trainable_params, full.optimizer_bytes)
    # Of a scan: pixels, what three convolutions, their activations and two poolings give, where the largest were,
    # 5 logarithms, a label; of all: means and deviations of batch norm, and one sum of the weights of the classes.
    of_a_scan = 4 * (64 + 2 * 1024 + 2 * 2048 + 512 + 2 * 512 + 128) + 8 * (512 + 128) + 4 * 5 + 8
    assert scratch.saved_bytes == full.saved_bytes == 8 * of_a_scan + 2 * 4 * (16 + 32 + 32) + 4
    # Of 8 scans: 128 features, 5 logarithms, a label each; and one sum of the weights of the classes.
    assert frozen.saved_bytes == 8 * (128 * 4 + 5 * 4 + 8) + 4


def test_saved_bytes_leave_the_network_as_it_was() -> None:
    learner = Learner(Network(), lr=0.1)
    before = {path: kept.clone() for path, kept in learner.network.state_dict().items()}
    learner.saved_bytes(Scans(np.ones((8, 1, 8, 8), np.float32), np.zeros(8, np.int64)))
    assert all(torch.equal(kept, before[path]) for path, kept in learner.network.state_dict().items())


def test_the_caller_keeps_its_random_numbers_and_threads(budget: Budget) -> None:
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    perform(framework_of("torch"), budget, lambda stage: None)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == 2
