"""Measures everything: ``python -m benchmarks``, or ``make bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import in_schedules
from benchmarks.report import Report

console = Console(width=None if sys.stdout.isatty() else 180)


class Framework(StrEnum):
    """What is measured."""

    TORCH = "torch"
    JAX = "jax"
    BOTH = "both"


FRAMEWORKS = (Framework.TORCH, Framework.JAX)


class Part(StrEnum):
    """Which part of it: what freezing costs, schedules, how near the limit is, or what is behind the line."""

    FREEZING = "freezing"
    SCHEDULES = "schedules"
    LEAN = "lean"
    LINES = "lines"
    ALL = "all"


def main(
    framework: Annotated[Framework, typer.Option(help="What to measure.")] = Framework.BOTH,
    part: Annotated[Part, typer.Option(help="Which part of it.")] = Part.ALL,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller models, fewer runs.")] = False,  # noqa: FBT002
    file: Annotated[Path | None, typer.Option("--json", help="Where to write the numbers.")] = None,
    page: Annotated[
        Path | None, typer.Option("--markdown", help="Where to write the tables of lean and lines.")
    ] = None,
) -> None:
    """Measures what freezing costs against freezing in other ways; exits with 1 if a target is missed."""
    reports = dict(measured([*FRAMEWORKS] if framework is Framework.BOTH else [framework], part, quick=quick))
    if file is not None:
        numbers = {one: report.numbers for one, report in reports.items()}
        file.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    if page is not None:
        texts = (f"## {one}\n\n{report.markdown}\n" for one, report in reports.items() if report.markdown)
        page.write_text("\n".join(texts), encoding="utf-8")
    verdict(reports)


def measured(frameworks: Sequence[Framework], part: Part, *, quick: bool) -> Iterator[tuple[str, Report]]:
    """The reports, by name."""
    if part in (Part.FREEZING, Part.ALL):
        for one in frameworks:
            # One that is not wanted need not be installed.
            yield one.value, import_module(f"benchmarks.in_{one}").measure(console, quick=quick)
    if part in (Part.SCHEDULES, Part.ALL):
        for one in frameworks:
            yield f"schedules in {one}", in_schedules.measure(console, one.value, quick=quick)
    if part in (Part.LEAN, Part.ALL) and Framework.TORCH in frameworks:
        yield "lean", import_module("benchmarks.in_lean").measure(console, quick=quick)
    if part in (Part.LEAN, Part.ALL) and Framework.JAX in frameworks:
        yield "lean in jax", import_module("benchmarks.in_jax.leaned").measure(console, quick=quick)
    if part in (Part.LINES, Part.ALL) and Framework.TORCH in frameworks:
        yield "lines", import_module("benchmarks.in_lines").measure(console, quick=quick)


def verdict(reports: dict[str, Report]) -> None:
    """Says which targets are missed."""
    missed = [f"{one}: {miss}" for one, report in reports.items() for miss in report.missed]
    console.print("\n".join(missed) or "Every target is met.")
    if missed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
