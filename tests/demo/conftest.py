"""One quick demo for all tests: two runs of six steps."""

import pytest

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
