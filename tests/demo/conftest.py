"""One quick demo in each framework for all tests: two runs of six steps."""

from collections.abc import Iterator
from importlib import import_module

import pytest
import torch

from demo.facts import FACTS, Facts
from frostline.demo.experiment import Run, perform, train
from frostline.demo.learner import Framework
from frostline.demo.outcome import Outcome, Settings

QUICK = Settings(runs=2, epochs=1, labelled=4, tested_after=(2, 6), batch=8)


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
def pieces() -> list[None]:
    """One for each piece of work that was reported."""
    return []


@pytest.fixture(scope="session")
def outcome(framework: Framework, pieces: list[None]) -> Outcome:
    pieces.clear()
    return perform(framework, QUICK, lambda: pieces.append(None))


@pytest.fixture(scope="session")
def run(framework: Framework) -> Run:
    """Trained; tests leave it as it is."""
    with framework.repeatable():
        return train(framework, QUICK, 0, lambda: None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow where other work runs beside the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
