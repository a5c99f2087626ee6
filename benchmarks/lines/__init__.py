"""The frost line, its cache, and the runtimes of the part below it, over live training."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from benchmarks.lines.cuts import CUTS
from benchmarks.lines.outcome import BELOW, EPOCH, Cached, Found, Runtimes
from benchmarks.processes import measured
from benchmarks.report import Report, environment, table

ROUNDS, QUICK_ROUNDS = 9, 2
RECIPE = "A fresh process for each model, process time, in turn, median [quartiles] of the ratios round by round"
IN_TORCH, IN_JAX = "benchmarks.lines.in_torch", "benchmarks.lines.in_jax"


def measure(console: Console, *, quick: bool) -> Report:
    """Measures every model, and JAX where it is installed; a miss is a goal that is not reached."""
    size, rounds = ("small", QUICK_ROUNDS) if quick else ("real", ROUNDS)
    has_jax = find_spec("jax") is not None
    parts: dict[Any, dict[str, Any]] = {Found: {}, Cached: {}, Runtimes: {}}
    for name, cut in CUTS.items():
        with console.status(f"{cut.title} ..."):
            if not name.endswith(" probe"):
                parts[Found][name] = measured(IN_TORCH, name, size, function="find")
            if name in EPOCH:
                parts[Cached][name] = measured(IN_TORCH, name, size, rounds, function="compare_with_cache")
            if name in BELOW:
                parts[Runtimes][name] = measured(IN_TORCH, name, size, rounds, function="compare_runtimes")
    if has_jax:
        with console.status("JAX, from the cache ..."):
            parts[Cached]["jax"] = measured(IN_JAX, size, rounds)
    tables = [
        table(kind.HEADINGS, [row for name, one in found.items() for row in one.rows(name)])
        for kind, found in parts.items()
    ]
    page = "\n\n".join([f"{environment('torch', *(['jax'] if has_jax else []))}. {RECIPE}.", *tables])
    numbers = {
        kind.__name__.lower(): {name: asdict(one) for name, one in found.items()} for kind, found in parts.items()
    }
    # Small models say nothing about goals that are meant for real ones.
    missed = [miss for found in parts.values() for name, one in found.items() for miss in one.misses(name)]
    return Report(page, {"recipe": RECIPE, "size": size, **numbers}, [] if quick else missed)
