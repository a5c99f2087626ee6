"""Schedules that train a part at a time, beside full training: bytes, time, and the claims of their papers."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from benchmarks.processes import measured
from benchmarks.report import Report, environment
from benchmarks.schedules.case import Case, bytes_held, times
from benchmarks.schedules.claims import Measured, claims, claims_table
from benchmarks.schedules.setup import QUICK, SETUPS, Setup


def measure_torch(console: Console, *, quick: bool) -> Report:
    """Measures LISA, BAdam and HiFT; a miss is a byte of moments or gradients that was not predicted."""
    setup, cases = _measured(console, "torch", quick=quick)
    found = claims(Measured(setup, {case.way: case for case in cases if not case.title.endswith("keep")}))
    return _report("torch", setup, cases, [times(cases), claims_table(found)], claims=[asdict(c) for c in found])


def measure_jax(console: Console, *, quick: bool) -> Report:
    """The same in JAX, where nothing is timed."""
    return _report("jax", *_measured(console, "jax", quick=quick), [])


def _measured(console: Console, framework: str, *, quick: bool) -> tuple[Setup, list[Case]]:
    setup = QUICK if quick else SETUPS[framework]
    with console.status("Full training, LISA, BAdam, HiFT, side by side ..."):
        return setup, measured(f"benchmarks.schedules.in_{framework}", setup)


def _report(framework: str, setup: Setup, cases: list[Case], more: list[str], **numbers: object) -> Report:
    page = "\n\n".join([f"{environment(framework)}; {setup}.", bytes_held(cases), *more])
    counted = {"setup": {**asdict(setup), "parameters": setup.parameters}, "ways": [asdict(case) for case in cases]}
    return Report(page, counted | numbers, [f"{case.title}: {miss}" for case in cases for miss in case.misses])
