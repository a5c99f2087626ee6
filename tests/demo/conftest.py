"""One quick demo in each framework for all tests: two runs of six steps."""

from collections.abc import Iterator

import pytest
import torch

from demo.facts import FACTS, Facts
from frostline.demo import perform
from frostline.demo.budget import Budget
from frostline.demo.framework import Framework, Name, framework_of
from frostline.demo.outcome import Outcome

QUICK = Budget(runs=2, epochs=1, labelled=4, looks=(2, 6), batch=8)


@pytest.fixture(scope="session")
def budget() -> Budget:
    return QUICK


@pytest.fixture(scope="session", params=["torch", "jax"])
def name(request: pytest.FixtureRequest) -> Name:
    """A test that asks for it, or for one of those below, is a test of both frameworks."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def framework(name: Name) -> Framework:
    return framework_of(name)


@pytest.fixture(scope="session")
def facts(name: Name) -> Facts:
    return FACTS[name]


@pytest.fixture(scope="session")
def outcome(framework: Framework) -> Outcome:
    return perform(framework, QUICK, lambda stage: None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where other work runs beside the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
