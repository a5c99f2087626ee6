"""Measures everything: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report import Report

console = Console(width=None if sys.stdout.isatty() else 180)


class Framework(StrEnum):
    """What is measured."""

    TORCH = "torch"
    JAX = "jax"
    BOTH = "both"


def main(
    framework: Annotated[Framework, typer.Option(help="What to measure.")] = Framework.BOTH,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller models, fewer runs.")] = False,  # noqa: FBT002
    file: Annotated[Path | None, typer.Option("--json", help="Where to write the numbers.")] = None,
) -> None:
    """Measures what freezing costs against freezing in other ways; exits with 1 if a target is missed."""
    chosen = [Framework.TORCH, Framework.JAX] if framework is Framework.BOTH else [framework]
    # One that is not wanted need not be installed.
    reports = {one: import_module(f"benchmarks.in_{one}").measure(console, quick=quick) for one in chosen}
    if file is not None:
        numbers = {one.value: report.numbers for one, report in reports.items()}
        file.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    verdict(reports)


def verdict(reports: dict[Framework, Report]) -> None:
    """Says which targets are missed."""
    missed = [f"{one}: {miss}" for one, report in reports.items() for miss in report.missed]
    console.print("\n".join(missed) or "Every target is met.")
    if missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
