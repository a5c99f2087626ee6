"""Lean freezing in PyTorch beside freezing by hand, checkpointing everything, memsave_torch and torch.compile."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec

import torch
from rich.console import Console

from benchmarks.in_lean.case import Case
from benchmarks.in_lean.parts import PARTS
from benchmarks.in_lean.tables import beside_by_hand
from benchmarks.in_lean.ways import BASE, ways_of
from benchmarks.processes import answer
from benchmarks.report import Report

ROUNDS, QUICK_ROUNDS = 20, 3
MACHINE = f"{platform.system()} {platform.machine()}, CPU, 1 thread"
RECIPE = (
    "Ratios to requires_grad_(False) and eval(): steps in turn, process time, median [quartiles] of the ratios round "
    "by round; bytes from the allocator's events; goals in brackets"
)


def measure(console: Console, *, quick: bool) -> Report:
    """Measures every part; a miss is a goal that is not reached."""
    if not find_spec("memsave_torch"):
        console.print("memsave_torch is not installed, and is left out: it is not on PyPI.")
    cases = list(measured(console, quick=quick))
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {MACHINE}"
    page = f"{versions}. {RECIPE}.\n\n{beside_by_hand(cases)}"
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    missed = [f"{case.about.title}: {miss}" for case in cases for miss in case.misses()]
    numbers = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": MACHINE,
        "recipe": RECIPE,
        "cases": [asdict(case) for case in cases],
    }
    if quick:
        console.print("These are small models, so nothing is held against the goals, which are meant for real ones.")
    return Report(numbers, [] if quick else missed, page)


def measured(console: Console, *, quick: bool) -> Iterator[Case]:
    """Each part, and each compiled one by itself."""
    size, rounds = ("small", QUICK_ROUNDS) if quick else ("real", ROUNDS)
    for name, part in PARTS.items():
        with console.status(f"{part.title} ..."):
            case = Case.of(answer("benchmarks.in_lean.run", name, str(rounds), size, *ways_of(part, quick=quick)))
            if part.compiled and not quick and shutil.which("c++"):
                case = joined(case, answer("benchmarks.in_lean.run", name, str(rounds), size, BASE, "torch.compile"))
        yield case


def joined(case: Case, compiled: dict[str, dict[str, float]]) -> Case:
    """With the compiled model, whose ratios are to the same model by hand in its own process."""
    other = Case.of(compiled)
    way = "torch.compile"
    return Case(
        **{
            **vars(case),
            "times": {**case.times, way: other.times[way]},
            "saved": {**case.saved, way: other.saved[way]},
            "peak": {**case.peak, way: other.peak[way]},
            "same": {**case.same, way: other.same[way]},
        }
    )
