"""The frost line, what is behind it from a cache, and in which runtime it is computed: ratios to live training."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec

from rich.console import Console

from benchmarks.in_lines import goals, tables
from benchmarks.in_lines.cuts import CUTS
from benchmarks.in_lines.outcome import Cached, Found, Race
from benchmarks.processes import answer
from benchmarks.report import Report

ROUNDS, QUICK_ROUNDS = 9, 2
PROBES = " probe"
MACHINE = f"{platform.system()} {platform.machine()}, CPU, 1 thread"
RECIPE = "A fresh process for each model, process time, in turn, median [quartiles] of the ratios round by round"


def measure(console: Console, *, quick: bool) -> Report:
    """Measures every model; a miss is a goal that is not reached."""
    size, rounds = ("small", QUICK_ROUNDS) if quick else ("real", ROUNDS)
    found = list(lines(console, size))
    cached = dict(caches(console, size, rounds))
    raced = dict(runtimes(console, size, rounds))
    head = f"torch {version('torch')}, Python {platform.python_version()}, {MACHINE}. {RECIPE}."
    page = "\n\n".join([head, tables.lines(found), tables.caches(cached), tables.runtimes(raced)])
    # As it is: Markdown that can be pasted.
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    numbers = {
        "torch": version("torch"),
        "jax": version("jax") if find_spec("jax") else None,
        "python": platform.python_version(),
        "machine": MACHINE,
        "recipe": RECIPE,
        "size": size,
        "lines": [asdict(one) for one in found],
        "cached": {name: asdict(one) for name, one in cached.items()},
        "runtimes": {name: asdict(one) for name, one in raced.items()},
    }
    # Small models say nothing about goals that are meant for real ones.
    return Report(numbers, [] if quick else list(goals.missed(found, cached, raced)), page)


def lines(console: Console, size: str) -> Iterator[Found]:
    """The line of every model."""
    for name, cut in CUTS.items():
        if not name.endswith(PROBES):
            with console.status(f"{cut.title}, its line ..."):
                yield Found(**answer("benchmarks.in_lines.found", name, size))


def caches(console: Console, size: str, rounds: int) -> Iterator[tuple[str, Cached]]:
    """Every model with a goal, and JAX where it is installed."""
    for name in filter(CUTS.__contains__, goals.EPOCH):
        with console.status(f"{CUTS[name].title}, from the cache ..."):
            yield name, Cached.of(answer("benchmarks.in_lines.cached", name, size, str(rounds)))
    if find_spec("jax"):
        with console.status("JAX, from the cache ..."):
            yield "jax", Cached.of(answer("benchmarks.in_lines.jax_cached", size, str(rounds)))


def runtimes(console: Console, size: str, rounds: int) -> Iterator[tuple[str, Race]]:
    """Every model with a goal; what is compiled takes a minute."""
    for name in goals.BELOW:
        with console.status(f"{CUTS[name].title}, in each runtime ..."):
            yield name, Race.of(answer("benchmarks.in_lines.runtimes", name, size, str(rounds)))
