"""The demo in PyTorch: the bytes that it saves for backward, and the state that it leaves unchanged."""

import pytest
import torch

from demo.performed import ONCE
from frostline.demo.experiment import perform
from frostline.demo.in_torch import FRAMEWORK
from frostline.demo.outcome import Outcome


@pytest.mark.parametrize("name", ["torch"], indirect=True)
def test_what_each_way_saves_for_backward(outcome: Outcome) -> None:
    # Of an image: pixels, what three convolutions, their activations and two poolings give, where the largest were,
    # 5 logarithms, a label; of all: means and deviations of batch norm, and one sum of the weights of the classes.
    of_an_image = 4 * (64 + 2 * 1024 + 2 * 2048 + 512 + 2 * 512 + 128) + 8 * (512 + 128) + 4 * 5 + 8
    assert outcome.cost.all_trained.saved_bytes == 8 * of_an_image + 2 * 4 * (16 + 32 + 32) + 4
    # Of 8 images: 128 features, 5 logarithms, a label each; and one sum of the weights of the classes.
    assert outcome.cost.now.saved_bytes == 8 * (128 * 4 + 5 * 4 + 8) + 4


def test_the_caller_keeps_its_random_numbers_and_threads() -> None:
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    perform(FRAMEWORK, ONCE, lambda: None)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == 2
