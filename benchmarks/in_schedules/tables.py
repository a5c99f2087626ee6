"""The numbers as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.in_schedules.case import Case, Count
from benchmarks.in_schedules.claims import Claim
from benchmarks.in_schedules.ways import AGAIN


def bytes_held(cases: Sequence[Case]) -> Table:
    """A row for each way: ratios to full training, whose own row has MiB."""
    table = Table(title="Bytes over those of full training, peak / mean")
    parts = ("moments", "moments kept", "gradients", "saved", "all, with parameters")
    full, *others = cases
    for heading in ("", *parts, *(["FLOPs"] if full.flops else []), "foretold", "loss"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    table.add_row(full.title, *absolute(full), exactness(full), losses(full))
    for case in others:
        if case.way != AGAIN:
            table.add_row(case.title, *ratios(case, full), exactness(case), losses(case))
    return table


def absolute(full: Case) -> list[str]:
    """MiB, and GFLOP."""
    counts = (full.optimizer, full.kept, full.gradients, full.saved, full.whole)
    flops = [f"{full.flops.peak / 1e9:.2f} GFLOP"] if full.flops else []
    return [*(f"{count.peak / 2**20:.2f} MiB" for count in counts), *flops]


def ratios(case: Case, full: Case) -> list[str]:
    """What is kept is compared with the moments of full training."""
    pairs: list[tuple[Count, Count]] = [
        (case.optimizer, full.optimizer),
        (case.kept, full.optimizer),
        (case.gradients, full.gradients),
        (case.saved, full.saved),
        (case.whole, full.whole),
    ]
    if case.flops and full.flops:
        pairs.append((case.flops, full.flops))
    return [" / ".join(f"{ratio:.3f}" for ratio in mine.over(theirs)) for mine, theirs in pairs]


def losses(case: Case) -> str:
    """At the beginning and at the end."""
    return f"{case.first:.2f} to {case.last:.2f}"


def exactness(case: Case) -> str:
    """Whether moments and gradients have the bytes that were foretold, at each step."""
    return "missed" if case.misses else "exact"


def times(cases: Sequence[Case]) -> Table:
    """A row for each way."""
    table = Table(title="Time over that of full training")
    for heading in ("", "ms", "all steps", "step by step", "all backward passes", "schedule, ms a step"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for case in cases:
        if times := case.times:
            ratios = (f"{times.total:.3f}", str(times.step), f"{times.backward:.3f}")
            table.add_row(case.title, f"{times.ms:.1f}", *ratios, f"{times.schedule_ms:.2f}")
    return table


def claimed(found: Sequence[Claim]) -> Table:
    """A row for each figure of a paper."""
    table = Table(title="What the papers claim, and what it comes to here, moments released")
    for heading in ("", "over full training", "claimed", "as a ratio", "here, foretold", "measured", "where"):
        table.add_column(
            heading, justify="right" if heading in ("as a ratio", "here, foretold", "measured") else "left"
        )
    for claim in found:
        numbers = (claim.ratio, claim.here.foretold, claim.here.measured)
        table.add_row(claim.way, claim.what, claim.figures, *map(shown, numbers), claim.source)
    return table


def shown(number: float | None) -> str:
    """A ratio, where there is one."""
    return "–" if number is None else f"{number:.3f}"
