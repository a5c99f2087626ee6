"""Lean freezing in PyTorch beside freezing by hand, checkpointing everything, memsave_torch and torch.compile."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from importlib.util import find_spec

from rich.console import Console

from benchmarks.lean.parts import BASE, COMPILED, PARTS
from benchmarks.processes import measured
from benchmarks.report import Report, environment, table

ROUNDS, QUICK_ROUNDS = 20, 3
RECIPE = (
    "Ratios to requires_grad_(False) and eval(): steps in turn, process time, median [quartiles] of the ratios round "
    "by round; bytes from the allocator's events; goals in brackets"
)


def measure(console: Console, *, quick: bool) -> Report:
    """Measures every part, and a compiled model in a process of its own."""
    has_memsave = find_spec("memsave_torch") is not None
    if not has_memsave:
        console.print("memsave_torch is not installed, and is left out: it is not on PyPI.")
    cases, rounds = {}, QUICK_ROUNDS if quick else ROUNDS
    for name, part in PARTS.items():
        # A small model has little that can be computed again.
        ways = [BASE, *(way for way in part.goals if not (quick and way == "budget"))]
        if part.has_peers:
            ways += ["checkpoint all", *(["memsave_torch"] if has_memsave and not quick else [])]
        with console.status(f"{part.title} ..."):
            cases[name] = measured("benchmarks.lean.steps", name, rounds, ways, quick)
            if part.has_peers and not quick and shutil.which("c++"):
                compiled = measured("benchmarks.lean.steps", name, rounds, [BASE, COMPILED], quick)
                cases[name] = cases[name].with_compiled(compiled)
    rows = [row for name, case in cases.items() for row in case.rows(PARTS[name])]
    shown = table(("model", "way", "saved", "time", "peak", "gradients"), rows, words=2)
    numbers = {"recipe": RECIPE, "cases": {name: asdict(case) for name, case in cases.items()}}
    missed = [miss for name, case in cases.items() for miss in case.misses(PARTS[name])]
    if quick:
        console.print("These are small models, so nothing is held against the goals, which are meant for real ones.")
    return Report(f"{environment('torch')}. {RECIPE}.\n\n{shown}", numbers, [] if quick else missed)
