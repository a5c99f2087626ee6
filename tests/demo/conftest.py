"""What was done once in each framework, for all tests."""

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch

from demo.facts import FACTS, Facts
from demo.performed import QUICK, performed
from frostline.demo.experiment import Run
from frostline.demo.learner import Framework
from frostline.demo.outcome import Outcome, Settings


@pytest.fixture(scope="session")
def settings() -> Settings:
    return QUICK


@pytest.fixture(scope="session", params=["torch", "jax"])
def name(request: pytest.FixtureRequest) -> str:
    """A test that asks for it, or for one of those below, is a test of both frameworks."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def framework(name: str) -> Framework:
    return import_module(f"frostline.demo.in_{name}").FRAMEWORK  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def facts(name: str) -> Facts:
    return FACTS[name]


@pytest.fixture(scope="session")
def outcome(name: str) -> Outcome:
    return performed(name).outcome


@pytest.fixture(scope="session")
def run(name: str) -> Run:
    """The first one, trained; tests leave it as it is."""
    return performed(name).runs[0]


@pytest.fixture(scope="session")
def pieces(name: str) -> int:
    """How many pieces of work were reported."""
    return performed(name).pieces


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where other work runs beside the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
