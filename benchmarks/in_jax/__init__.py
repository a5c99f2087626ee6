"""What is measured of JAX. Nothing here imports it: every case has a process of its own."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version

from rich.console import Console

from benchmarks.in_jax.case import PLACES, Case
from benchmarks.in_jax.tables import tables
from benchmarks.processes import answer
from benchmarks.report import Report

PACKAGES = ("jax", "optax", "equinox", "paramax")
MODELS, QUICK_MODELS = ("mlp", "transformer"), ("small mlp",)
ROUNDS, QUICK_ROUNDS = 11, 3


def cases(console: Console, *, quick: bool) -> Iterator[Case]:
    """Every model, frozen in every place; each in a fresh process."""
    for model in QUICK_MODELS if quick else MODELS:
        for place in ("bottom", "top") if quick else PLACES:
            with console.status(f"{model}, {place} ..."):
                rounds = QUICK_ROUNDS if quick else ROUNDS
                yield Case.of(answer("benchmarks.in_jax.steps", model, place, str(rounds)))


def measure(console: Console, *, quick: bool) -> Report:
    """Measures a step with nine of twelve layers frozen, against the other ways to freeze them."""
    versions = {package: version(package) for package in PACKAGES}
    named = ", ".join(f"{package} {number}" for package, number in versions.items())
    console.print(f"{named}, Python {platform.python_version()}, CPU, 1 thread")
    measured = list(cases(console, quick=quick))
    for table in tables(measured):
        console.print(table)
    numbers = {"versions": versions, "steps": [{**asdict(c), "misses": c.misses()} for c in measured]}
    return Report(numbers, [f"{c.title}: {miss}" for c in measured for miss in c.misses()])
