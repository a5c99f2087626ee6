"""Measures everything: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report import Report

console = Console(width=None if sys.stdout.isatty() else 180)


class Framework(StrEnum):
    """The framework that is measured."""

    TORCH = "torch"
    JAX = "jax"
    BOTH = "both"


class Part(StrEnum):
    """The part that is measured: freezing, schedules, lean freezing, or the frost line."""

    FREEZING = "freezing"
    SCHEDULES = "schedules"
    LEAN = "lean"
    LINES = "lines"
    ALL = "all"


# Part, framework, name of the report, module and function. A framework that is not wanted need not be installed.
MEASURES = (
    (Part.FREEZING, Framework.TORCH, "torch", "freezing", "measure"),
    (Part.FREEZING, Framework.JAX, "jax", "in_jax", "measure"),
    (Part.FREEZING, Framework.JAX, "changes in jax", "in_jax", "measure_changes"),
    (Part.SCHEDULES, Framework.TORCH, "schedules in torch", "schedules", "measure_torch"),
    (Part.SCHEDULES, Framework.JAX, "schedules in jax", "schedules", "measure_jax"),
    (Part.LEAN, Framework.TORCH, "lean", "lean", "measure"),
    (Part.LEAN, Framework.JAX, "lean in jax", "in_jax", "measure_lean"),
    (Part.LINES, Framework.TORCH, "lines", "lines", "measure"),
)


def main(
    framework: Annotated[Framework, typer.Option(help="What to measure.")] = Framework.BOTH,
    part: Annotated[Part, typer.Option(help="Which part of it.")] = Part.ALL,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller models, fewer runs.")] = False,  # noqa: FBT002
    file: Annotated[Path | None, typer.Option("--json", help="Where to write the numbers.")] = None,
    page: Annotated[Path | None, typer.Option("--markdown", help="Where to write the tables.")] = None,
) -> None:
    """Measures the cost of freezing against freezing in other ways; exits with 1 if a target is missed."""
    reports = dict(measured(framework, part, quick=quick))
    if file is not None:
        numbers = {name: report.numbers for name, report in reports.items()}
        file.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    if page is not None:
        texts = (f"## {name}\n\n{report.page}\n" for name, report in reports.items())
        page.write_text("\n".join(texts), encoding="utf-8")
    missed = [f"{name}: {miss}" for name, report in reports.items() for miss in report.missed]
    console.print("\n".join(missed) or "Every target is met.")
    if missed:
        raise typer.Exit(1)


def measured(framework: Framework, part: Part, *, quick: bool) -> Iterator[tuple[str, Report]]:
    """The reports, by name."""
    for of_part, of_framework, name, module, function in MEASURES:
        if part in (of_part, Part.ALL) and framework in (of_framework, Framework.BOTH):
            report = getattr(import_module(f"benchmarks.{module}"), function)(console, quick=quick)
            # As it is: Markdown that can be pasted.
            console.print(report.page, markup=False, highlight=False, soft_wrap=True)
            yield name, report


if __name__ == "__main__":
    typer.run(main)
