"""The numbers as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from benchmarks.overhead import Overhead
from benchmarks.reading import STEPS_OF_AN_EPOCH, Once
from benchmarks.steps import AGAIN, BASE, OURS, Case


def steps(cases: Sequence[Case]) -> Table:
    """A row for each model and each kind of step."""
    table = Table(title="A training step: time over the time by hand, median \\[quartiles]; bytes beyond those by hand")
    for heading in ("model", "ms", AGAIN, *OURS, "MiB saved", "beyond", "MiB peak", "beyond"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for case in cases:
        table.add_row(
            case.title,
            f"{case.step_ms:.0f}",
            *(str(case.times[way]) for way in (AGAIN, *OURS)),
            *beyond(case.saved),
            *beyond(case.peak),
        )
    return table


def beyond(count: dict[str, int]) -> tuple[str, str]:
    """MiB by hand, and the bytes that our ways take beyond them."""
    return f"{count[BASE] / 2**20:.2f}", " / ".join(f"{count[way] - count[BASE]:+,}" for way in OURS)


def costs(added: dict[str, Overhead]) -> Table:
    """A row for each way of freezing."""
    table = Table(title="What a frozen call adds, in microseconds")
    for heading in ("", "call", "each parameter", "each module", "each own module\nwith a buffer"):
        table.add_column(heading, justify="right" if heading else "left")
    for way, cost in added.items():
        numbers = (cost.call, cost.parameter, cost.module, cost.buffer)
        # Adding 0 makes a zero of a negative zero.
        table.add_row(way, *(f"{round(number, 2) + 0:.2f}" for number in numbers))
    return table


def once(done: Once, resolving: dict[str, float], resnet_ms: float) -> Table:
    """A row for each thing that is done once."""
    table = Table(title="What is done once")
    table.add_column("on")
    table.add_column("what")
    table.add_column("takes", justify="right")
    for what, milliseconds in {**resolving, **done.milliseconds}.items():
        table.add_row("20,000 parameters", what, f"{milliseconds:.0f} ms")
    table.add_row("ResNet-50", "with freeze(model)", f"{done.temporary_ms:.1f} ms")
    table.add_row("ResNet-50", "guard, in and out", f"{done.guard_seconds * 1000:.0f} ms")
    table.add_row("", "", f"{done.guard_gigabytes:.1f} GB/s")
    share = f"{100 * done.share(resnet_ms):.2f} %"
    table.add_row("", f"of an epoch of {STEPS_OF_AN_EPOCH} steps", share)
    return table
