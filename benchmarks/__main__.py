"""Measures everything: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks import overhead, reading, resolve
from benchmarks.models import MODELS
from benchmarks.steps import Case
from benchmarks.tables import costs, once, steps

ROUNDS, QUICK_ROUNDS = 45, 5
# Memory is given back to nobody and asked for in big pieces, so that no step pays for another one's pages.
QUIET = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": str(2**28),
    "MALLOC_TRIM_THRESHOLD_": str(10**12),
    "OMP_NUM_THREADS": "1",
}
console = Console(width=None if sys.stdout.isatty() else 180)


def case(name: str, rounds: int, *, compiled: bool) -> Case:
    """One model, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.steps", name, str(rounds), *(["compiled"] if compiled else [])]
    done = subprocess.run(command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return Case.of(json.loads(done.stdout))


def cases(*, quick: bool) -> Iterator[Case]:
    """Every model, eager and, where a C++ compiler is there, compiled."""
    kinds = [False] if quick else [False, True]
    if not quick and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        console.print("No C++ compiler here: torch.compile is not measured.")
        kinds = [False]
    for compiled in kinds:
        for name, (title, _) in MODELS.items():
            with console.status(f"{title}, {'compiled' if compiled else 'eager'} ..."):
                yield case(name, QUICK_ROUNDS if quick else ROUNDS, compiled=compiled)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs, and nothing compiled.")] = False,  # noqa: FBT002
    file: Annotated[Path | None, typer.Option("--json", help="Where to write the numbers.")] = None,
) -> None:
    """Measures what freezing costs against requires_grad_(False) and eval(); exits with 1 if a target is missed."""
    torch.set_num_threads(1)
    console.print(f"torch {torch.__version__}, Python {platform.python_version()}, CPU, 1 thread")
    measured = list(cases(quick=quick))
    console.print(steps(measured))
    with console.status("Overhead of a call ..."):
        added = overhead.measure()
    console.print(costs(added))
    with console.status("What is done once ..."):
        done_once, resolving = reading.measure(1 if quick else 5), resolve.measure(1 if quick else 5)
    resnet_ms = next(c.step_ms for c in measured if c.model == "resnet")
    console.print(once(done_once, resolving, resnet_ms))
    if file is not None:
        write(file, measured, added, done_once, resolving)
    verdict(measured)


def write(
    file: Path,
    measured: list[Case],
    added: dict[str, overhead.Overhead],
    done_once: reading.Once,
    resolving: dict[str, float],
) -> None:
    """All numbers as JSON."""
    numbers = {
        "torch": torch.__version__,
        "steps": [{**asdict(c), "misses": c.misses()} for c in measured],
        "overhead_us": {way: asdict(cost) for way, cost in added.items()},
        "once": asdict(done_once),
        "resolve_ms": resolving,
    }
    file.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def verdict(measured: list[Case]) -> None:
    """Says which targets are missed."""
    missed = [f"{c.title}: {miss}" for c in measured for miss in c.misses()]
    console.print("\n".join(missed) or "Every target is met.")
    if missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
