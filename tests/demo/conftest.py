"""One quick demo for all tests: two runs of six steps."""

from collections.abc import Iterator

import pytest
import torch

from frostline.demo import perform
from frostline.demo.budget import Budget
from frostline.demo.outcome import Outcome

QUICK = Budget(runs=2, epochs=1, labelled=4, looks=(2, 6), batch=8)


@pytest.fixture(scope="session")
def budget() -> Budget:
    return QUICK


@pytest.fixture(scope="session")
def outcome() -> Outcome:
    return perform(QUICK, lambda stage: None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where other work runs beside the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
