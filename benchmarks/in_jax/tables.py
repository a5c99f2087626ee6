"""The numbers as tables: a column for each model and place, a row for each way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from benchmarks.in_jax.case import AGAIN, ALL, BASE, LOOPS, OURS, PEERS, Case

WAYS = (ALL, *PEERS, *OURS)
Cell = Callable[[Case, str], str]


def tables(cases: Sequence[Case]) -> list[Table]:
    """All of them."""
    loops = " / ".join(LOOPS)
    return [
        table(f"FLOPs of a step over those of training all, {loops}", cases, flops),
        table(f"MiB that a step needs while it runs, {loops}", cases, temporary),
        table("MiB that a step takes / that it returns / of these the optimizer's state, plain", cases, held),
        table("Frozen arrays that moved, and the norm that is logged over that of what trains", cases, truth),
        *(table(f"Time over the time by hand, {loop}", cases, times(loop), (*WAYS, AGAIN)) for loop in LOOPS),
    ]


def table(title: str, cases: Sequence[Case], cell: Cell, ways: Sequence[str] = WAYS) -> Table:
    """A cell for each way and case."""
    made = Table(title=title)
    made.add_column("")
    for case in cases:
        made.add_column(case.title, justify="right", no_wrap=True)
    for way in ways:
        made.add_row(way, *(cell(case, way) for case in cases))
    return made


def flops(case: Case, way: str) -> str:
    """Relative numbers; the absolute one of training all."""
    every = case.steps["plain"][ALL].flops
    if way == ALL:
        return f"{every / 1e9:.3f} GFLOP"
    return " / ".join(f"{case.steps[loop][way].flops / every:.3f}" for loop in LOOPS)


def temporary(case: Case, way: str) -> str:
    """Of all three loops."""
    return " / ".join(f"{case.steps[loop][way].temporary / 2**20:.1f}" for loop in LOOPS)


def held(case: Case, way: str) -> str:
    """Arguments, outputs, optimizer state."""
    step = case.steps["plain"][way]
    return " / ".join(f"{size / 2**20:.1f}" for size in (step.arguments, step.outputs, step.state))


def truth(case: Case, way: str) -> str:
    """Whether freezing freezes."""
    moved = "–" if way == ALL else f"{case.steps['plain'][way].moved} of {case.frozen}"
    return f"{moved}, {case.steps['norm'][way].norm:.2f} x"


def times(loop: str) -> Cell:
    """Ratios in one loop."""

    def cell(case: Case, way: str) -> str:
        if way == BASE:
            return f"{case.steps[loop][way].ms:.1f} ms"
        return str(case.again[loop] if way == AGAIN else case.steps[loop][way].time)

    return cell
