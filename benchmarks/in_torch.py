"""What is measured of PyTorch."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict

import torch
from rich.console import Console

from benchmarks import overhead, reading, resolve
from benchmarks.models import MODELS
from benchmarks.processes import answer
from benchmarks.report import Report
from benchmarks.steps import Case
from benchmarks.tables import costs, once, steps

ROUNDS, QUICK_ROUNDS = 45, 5


def case(name: str, rounds: int, *, compiled: bool) -> Case:
    """One model, in a fresh process."""
    return Case.of(answer("benchmarks.steps", name, str(rounds), *(["compiled"] if compiled else [])))


def cases(console: Console, *, quick: bool) -> Iterator[Case]:
    """Every model, eager and, where a C++ compiler is there, compiled."""
    kinds = [False] if quick else [False, True]
    if not quick and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        console.print("No C++ compiler here: torch.compile is not measured.")
        kinds = [False]
    for compiled in kinds:
        for name, (title, _) in MODELS.items():
            with console.status(f"{title}, {'compiled' if compiled else 'eager'} ..."):
                yield case(name, QUICK_ROUNDS if quick else ROUNDS, compiled=compiled)


def measure(console: Console, *, quick: bool) -> Report:
    """Measures what freezing costs against requires_grad_(False) and eval()."""
    torch.set_num_threads(1)
    console.print(f"torch {torch.__version__}, Python {platform.python_version()}, CPU, 1 thread")
    measured = list(cases(console, quick=quick))
    console.print(steps(measured))
    with console.status("Overhead of a call ..."):
        added = overhead.measure()
    console.print(costs(added))
    with console.status("What is done once ..."):
        done_once, resolving = reading.measure(1 if quick else 5), resolve.measure(1 if quick else 5)
    resnet_ms = next(c.step_ms for c in measured if c.model == "resnet")
    console.print(once(done_once, resolving, resnet_ms))
    numbers = {
        "version": torch.__version__,
        "steps": [{**asdict(c), "misses": c.misses()} for c in measured],
        "overhead_us": {way: asdict(cost) for way, cost in added.items()},
        "once": asdict(done_once),
        "resolve_ms": resolving,
    }
    return Report(numbers, [f"{c.title}: {miss}" for c in measured for miss in c.misses()])
