"""What `fj.lean` gains in JAX. Nothing here imports it: every case has a process of its own."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from rich.console import Console

from benchmarks.in_jax.case import PLACES
from benchmarks.markdown import table
from benchmarks.processes import answer
from benchmarks.report import Report

AGAIN, DOTS, LEAN = "plain again", "checkpoint, dots_saveable", "fj.lean"
# In the MLP with ReLU there is nothing to gain.
MODELS, QUICK_MODELS = ("gelu mlp", "transformer", "relu mlp"), ("gelu mlp",)
ROUNDS, QUICK_ROUNDS = 11, 3
RECIPE = (
    "Ratios to the same compiled step without it: steps in turn, process time, median [quartiles] of the ratios round "
    "by round; saved bytes by fj.cost, temporary bytes by XLA; apart is the largest difference of a gradient"
)


def measure(console: Console, *, quick: bool) -> Report:
    """Measures every model, frozen in every place; a miss is where more is kept than without it."""
    versions = {package: version(package) for package in ("jax", "optax")}
    named = ", ".join(f"{package} {number}" for package, number in versions.items())
    cases = list(_cases(console, quick=quick))
    rows = [row for title, found in cases for row in _rows(title, found)]
    headings = ("model, frozen", "way", "saved", "temporary", "time", "apart")
    page = f"{named}, Python {platform.python_version()}, CPU, 1 thread. {RECIPE}.\n\n{table(headings, rows, words=2)}"
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    missed = [f"{title}: keeps {found[LEAN]['saved']:.3f} ×" for title, found in cases if found[LEAN]["saved"] > 1]
    return Report({"versions": versions, "recipe": RECIPE, "cases": dict(cases)}, missed, page)


def _cases(console: Console, *, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    rounds = str(QUICK_ROUNDS if quick else ROUNDS)
    for model in QUICK_MODELS if quick else MODELS:
        for place in ("top",) if quick else PLACES:
            with console.status(f"{model}, {place} ..."):
                yield f"{model}, {place}", answer("benchmarks.in_jax.lean", model, place, rounds)


def _rows(title: str, found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for way, row in found.items():
        numbers = (f"{row['saved']:.3f}", f"{row['temporary']:.3f}", row["time"], f"{row['apart']:.0e}")
        yield (title if way == AGAIN else "", way, *numbers)
