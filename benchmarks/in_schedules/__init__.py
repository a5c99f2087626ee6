"""Schedules that train a part at a time, beside full training: bytes, time, and what their papers claim."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from rich.console import Console

from benchmarks.in_schedules.case import Case
from benchmarks.in_schedules.claims import Measured, claims
from benchmarks.in_schedules.setup import QUICK, SETUPS, Setup
from benchmarks.in_schedules.tables import bytes_held, claimed, times
from benchmarks.in_schedules.ways import RELEASE
from benchmarks.processes import answer
from benchmarks.report import Report


def measure(console: Console, framework: str, *, quick: bool) -> Report:
    """Measures LISA, BAdam and HiFT; a miss is a byte of moments or gradients that was not foretold."""
    setup = QUICK if quick else SETUPS[framework]
    console.print(f"{framework} {version(framework)}, Python {platform.python_version()}, CPU, 1 thread; {setup}")
    with console.status("Full training, LISA, BAdam, HiFT, side by side ..."):
        read = answer(f"benchmarks.in_schedules.{framework}_run", *(["quick"] if quick else []))
    cases = [Case.of(one) for one in read]
    console.print(bytes_held(cases))
    numbers = {
        "version": version(framework),
        "setup": {**asdict(setup), "parameters": setup.parameters},
        "ways": [asdict(case) for case in cases],
    }
    if framework == "torch":
        numbers["claims"] = compared(console, setup, cases)
    return Report(numbers, [f"{case.title}: {miss}" for case in cases for miss in case.misses])


def compared(console: Console, setup: Setup, cases: list[Case]) -> list[dict[str, Any]]:
    """With what the papers claim."""
    found = claims(Measured(setup, {case.way: case for case in cases if case.moments == RELEASE}))
    console.print(times(cases))
    console.print(claimed(found))
    return [asdict(claim) for claim in found]
