"""Freezing in JAX beside the other ways to do it, and lean freezing. Nothing here imports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from rich.console import Console

from benchmarks.in_jax.case import AGAIN, ALL, BASE, LOOPS, OURS, PEERS, PLACES, Case
from benchmarks.processes import measured
from benchmarks.report import Report, environment, table

MODELS, QUICK_MODELS = ("mlp", "transformer"), ("small mlp",)
# In the MLP with ReLU lean freezing has nothing to gain.
LEAN_MODELS, QUICK_LEAN_MODELS = ("gelu mlp", "transformer", "mlp"), ("gelu mlp",)
ROUNDS, QUICK_ROUNDS = 11, 3
LEAVES, QUICK_LEAVES = (2_000, 20_000), (2_000,)
MOST = 2.5
CHANGES_RECIPE = (
    "A thaw of one leaf: AdamW's own init for the whole tree, the first and a later tx.follow, a change by a driver; "
    "reading is what the first tx.follow takes beyond that init, in inits. Process time of one call"
)
LEAN = "fj.lean"
LEAN_RECIPE = (
    "Ratios to the same compiled step without it: steps in turn, process time, median [quartiles] of the ratios round "
    "by round; saved bytes by fj.cost, temporary bytes by XLA; difference is the largest one of a gradient"
)


def measure(console: Console, *, quick: bool) -> Report:
    """Measures a step with nine of twelve layers frozen, for every model and place."""
    cases, rounds = [], QUICK_ROUNDS if quick else ROUNDS
    for model in QUICK_MODELS if quick else MODELS:
        for place in ("bottom", "top") if quick else PLACES:
            with console.status(f"{model}, {place} ..."):
                cases.append(measured("benchmarks.in_jax.steps", model, place, rounds))
    page = "\n\n".join([f"{environment('jax', 'optax', 'equinox', 'paramax')}.", *tables(cases)])
    return Report(page, {"steps": [asdict(case) for case in cases]}, [miss for case in cases for miss in case.misses()])


def tables(cases: Sequence[Case]) -> list[str]:
    """A column for each model and place, a row for each way."""

    def of(title: str, cell: Callable[[Case, str], str], *more: str) -> str:
        rows = [(way, *(cell(case, way) for case in cases)) for way in (ALL, *PEERS, *OURS, *more)]
        return table(("way", *(case.title for case in cases)), rows, title=title)

    def flops(case: Case, way: str) -> str:
        every = case.steps["plain"][ALL].flops
        if way == ALL:
            return f"{every / 1e9:.3f} GFLOP"
        return " / ".join(f"{case.steps[loop][way].flops / every:.3f}" for loop in LOOPS)

    def temporary(case: Case, way: str) -> str:
        return " / ".join(f"{case.steps[loop][way].temporary / 2**20:.1f}" for loop in LOOPS)

    def held(case: Case, way: str) -> str:
        step = case.steps["plain"][way]
        return " / ".join(f"{size / 2**20:.1f}" for size in (step.arguments, step.outputs, step.state))

    def moved(case: Case, way: str) -> str:
        count = "–" if way == ALL else f"{case.steps['plain'][way].moved} of {case.frozen}"
        return f"{count}, {case.steps['norm'][way].norm:.2f} x"

    def time(loop: str) -> Callable[[Case, str], str]:
        def cell(case: Case, way: str) -> str:
            step = case.steps[loop][way]
            return f"{step.ms:.1f} ms" if way == BASE else str(step.time)

        return cell

    loops = " / ".join(LOOPS)
    return [
        of(f"FLOPs of a step over those of training all, {loops}", flops),
        of(f"MiB that a step needs while it runs, {loops}", temporary),
        of("MiB that a step takes / that it returns / of these the optimizer's state, plain", held),
        of("Frozen arrays that moved, and the norm that is logged over that of the trainable part", moved),
        *(of(f"Time over the time by hand, {loop}", time(loop), AGAIN) for loop in LOOPS),
    ]


def measure_changes(console: Console, *, quick: bool) -> Report:
    """Measures a change of the frozen set in trees of many leaves; a miss is where reading a state takes too long."""
    rows, cases = [], {}
    for count in QUICK_LEAVES if quick else LEAVES:
        with console.status(f"{count} leaves ..."):
            found = cases[count] = measured("benchmarks.in_jax.changes", count)
        found["reading"] = (found["first"] - found["optax"]) / found["optax"]
        times = (f"{found[key]:.2f} s" for key in ("optax", "first", "later", "driver"))
        rows.append((f"{count:,}", *times, f"{found['reading']:.2f} x"))
    shown = table(("leaves", "tx.init", "tx.follow", "again", "driver.step", "reading"), rows)
    missed = [f"{count} leaves: {found['reading']:.1f} x" for count, found in cases.items() if found["reading"] > MOST]
    return Report(f"{environment('jax', 'optax')}. {CHANGES_RECIPE}.\n\n{shown}", {"cases": cases}, missed)


def measure_lean(console: Console, *, quick: bool) -> Report:
    """Measures `fj.lean` for every model and place; a miss is where more is saved than without it."""
    cases, rounds = {}, QUICK_ROUNDS if quick else ROUNDS
    for model in QUICK_LEAN_MODELS if quick else LEAN_MODELS:
        for place in ("top",) if quick else PLACES:
            with console.status(f"{model}, {place} ..."):
                title = f"{'relu mlp' if model == 'mlp' else model}, {place}"
                cases[title] = measured("benchmarks.in_jax.lean", model, place, rounds)
    rows = [
        ("" if number else title, way, f"{row['saved']:.3f}", f"{row['temporary']:.3f}", row["time"], row["difference"])
        for title, found in cases.items()
        for number, (way, row) in enumerate(found.items())
    ]
    shown = table(("model, frozen", "way", "saved", "temporary", "time", "difference"), rows, words=2)
    missed = [
        f"{title}: saves {found[LEAN]['saved']:.3f} ×" for title, found in cases.items() if found[LEAN]["saved"] > 1
    ]
    return Report(f"{environment('jax', 'optax')}. {LEAN_RECIPE}.\n\n{shown}", {"cases": cases}, missed)
