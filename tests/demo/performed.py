"""One quick demo in each framework for all tests: two runs of six steps."""

from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

import pytest

from frostline.demo import experiment
from frostline.demo.experiment import Run, train
from frostline.demo.outcome import Outcome, Settings

QUICK = Settings(runs=2, epochs=1, labelled=4, tested_after=(2, 6), batch=8)
ONCE = replace(QUICK, runs=1, epochs=0)
"""For controls: one run, of a network that has learned nothing yet."""


@dataclass(frozen=True, eq=False)
class Performed:
    """A demo that was done.

    Attributes:
        runs: its repetitions, trained.
        pieces: how many pieces of work were reported.
    """

    outcome: Outcome
    runs: list[Run]
    pieces: int


@cache
def performed(name: str) -> Performed:
    """Once for all files; a fixture of the session would begin again whenever the framework changes."""
    runs: list[Run] = []
    pieces: list[None] = []
    framework = import_module(f"frostline.demo.in_{name}").FRAMEWORK

    def recorded(*arguments: Any) -> Run:
        runs.append(train(*arguments))
        return runs[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "train", recorded)
        outcome = experiment.perform(framework, QUICK, lambda: pieces.append(None))
    return Performed(outcome, runs, len(pieces))
