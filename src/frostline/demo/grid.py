"""The tables of the demo as rows of texts, for a terminal and for a page alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from frostline._core.reporting.cost import Bill
from frostline._core.reporting.cost_table import flops
from frostline._core.reporting.table import human
from frostline.demo.limits import Limits
from frostline.demo.outcome import Outcome, Score
from frostline.demo.sharing import Gradients, Sharing


@final
@dataclass(frozen=True)
class Grid:
    """A table: the first column names its row, the others are numbers.

    Attributes:
        titles: one for each column.
        rows: as many texts each.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def score_grid(outcome: Outcome) -> Grid:
    """The three ways."""
    titles = ("", "5 to 9,\nunseen %", "0 to 4,\nafter %", "ms a\nstep", "params\ntrained", "optimizer\nstate")
    return Grid((*titles, "saved for\nbackward"), tuple(_score_row(score) for score in outcome.scores))


def _score_row(score: Score) -> tuple[str, ...]:
    return (
        score.way,
        score.accuracy.percent,
        "–" if score.way == "from scratch" else score.kept.percent,
        f"{1000 * score.step_seconds:.2f}",
        f"{score.trainable_params:,}",
        human(score.optimizer_bytes),
        human(score.saved_bytes),
    )


def limit_grid(limits: Limits) -> Grid:
    """A step in four ways."""
    cost = limits.cost

    def row(name: str, bill: Bill, seconds: float | None) -> tuple[str, ...]:
        time = "–" if seconds is None else f"{1000 * seconds:.2f}"
        return name, time, flops(bill.flops), human(bill.saved_bytes)

    return Grid(
        ("", "ms a\nstep", "FLOPs", "saved for\nbackward"),
        (
            row("everything trained", cost.all_trained, limits.full_seconds),
            row("trunk frozen", cost.now, limits.live_seconds),
            row("the limit", cost.limit, None),
            ("trunk from the cache", f"{1000 * limits.cached_seconds:.2f}", "–", "–"),
        ),
    )


def sharing_grid(sharing: Sharing) -> Grid:
    """The layer with two uses."""

    def part(changed: int) -> str:
        return f"{changed:,} of {sharing.values:,}"

    return Grid(
        ("", "m0 trains l2", "m1 holds it still"),
        (
            ("gradient of l2.weight (norm)", _weight(sharing.m0), _weight(sharing.m1)),
            ("gradient of what goes into l2", f"{sharing.m0.input:.6f}", f"{sharing.m1.input:.6f}"),
            ("values of l2.weight a step changes", part(sharing.changed_by_m0), part(sharing.changed_by_m1)),
            ("l2(x) after a step of m0 moves by", "", f"{sharing.seen_by_m1:.6f}"),
        ),
    )


def _weight(gradients: Gradients) -> str:
    return "None" if gradients.weight is None else f"{gradients.weight:.6f}"
