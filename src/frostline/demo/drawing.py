"""The drawings of the demo, on any axes: the digits, the learning curves, and what each way costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import PercentFormatter

from frostline._core.reporting.cost_table import flops
from frostline._core.reporting.table import human
from frostline.demo.contest import Way
from frostline.demo.limits import Limits
from frostline.demo.outcome import Outcome, Score
from frostline.demo.scans import NEW, OLD, one_of_each

# Readable on white and on black.
COLORS: dict[Way, str] = {"frozen trunk": "#2589d0", "full fine-tuning": "#e0702a", "from scratch": "#8d7bd0"}
LIMIT_COLORS = {
    "all trained": COLORS["full fine-tuning"],
    "frozen": COLORS["frozen trunk"],
    "at the limit": "#2a9d6f",
    "from the cache": "#2a9d6f",
}
COST_TITLES = ("time a step", "optimizer state", "saved for backward", "parameters trained")


@final
@dataclass(frozen=True)
class Ink:
    """The colours of what is not data.

    Attributes:
        dark: of what is to be read first.
        soft: of scales and notes.
        rule: of lines behind the data.
    """

    dark: str
    soft: str
    rule: str


def draw_digits(places: Sequence[Axes], labelled: int, ink: Ink) -> None:
    """Draws one scan of each digit on ten axes."""
    colors = [COLORS["frozen trunk"]] * len(OLD) + [COLORS["full fine-tuning"]] * len(NEW)
    images = [image[0] for digits in (OLD, NEW) for image in one_of_each(digits).images]
    for axes, image, color in zip(places, images, colors, strict=True):
        # A pixel is how much of the colour there is, so that the paper may be white or black.
        axes.imshow(np.dstack([np.broadcast_to(to_rgb(color), (8, 8, 3)), image]), interpolation="nearest")
        axes.axis("off")
    for axes, title in (
        (places[0], "learnt first"),
        (places[5], f"learnt then, from {labelled} labelled scans of each"),
    ):
        axes.set_title(title, loc="left", color=ink.soft, fontsize=11)


def draw_curves(axes: Axes, outcome: Outcome, ink: Ink) -> None:
    """Draws the accuracy on unseen scans against the steps: the mean of the runs, and from the worst to the best."""
    steps = (0, *outcome.budget.looks)
    for score in outcome.scores:
        color = COLORS[score.way]
        lows, highs = ([edge(look.values) for look in score.curve] for edge in (min, max))
        axes.fill_between(steps, lows, highs, color=color, alpha=0.15, linewidth=0)
        axes.plot(
            steps,
            [look.mean for look in score.curve],
            color=color,
            linewidth=2.2,
            marker="o",
            markersize=4,
            clip_on=False,
        )
    _label_ends(axes, outcome)
    _bare(axes, ink)
    axes.set(xlim=(0, steps[-1]), ylim=(0, 1.02), xticks=(0, *outcome.budget.looks[2:]))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", color=ink.rule, linewidth=0.8)
    axes.set_xlabel("steps", color=ink.soft)


def draw_costs(places: Sequence[Axes], outcome: Outcome, ink: Ink) -> None:
    """Draws what a step of each way costs, on four axes."""
    ways = [score.way for score in outcome.scores]
    for axes, title, (values, labels) in zip(places, COST_TITLES, _costs(outcome.scores), strict=True):
        _bars(axes, title, values, labels, [COLORS[way] for way in ways], ink)
        # Room for the label of the longest bar.
        axes.set_xlim(0, 1.75 * max(values))
    places[0].set_yticks(range(len(ways)), ways)
    places[0].tick_params(length=0, pad=8, labelsize=11)
    for label, way in zip(places[0].get_yticklabels(), ways, strict=True):
        label.set_color(COLORS[way])


def _costs(scores: Sequence[Score]) -> list[tuple[list[float], list[str]]]:
    times = [1000 * score.step_seconds for score in scores]
    states = [score.optimizer_bytes for score in scores]
    saved = [score.saved_bytes for score in scores]
    params = [score.trainable_params for score in scores]
    return [
        (times, [f"{time:.1f} ms" for time in times]),
        (list(states), [human(size) for size in states]),
        (list(saved), [human(size) for size in saved]),
        (list(params), [f"{count:,}" for count in params]),
    ]


def draw_limits(places: Sequence[Axes], outcome: Outcome, ink: Ink) -> None:
    """Draws what a step costs, could cost, and costs from the cache, on three axes."""
    for axes, (title, bars) in zip(places, _limits(outcome.limits).items(), strict=True):
        values, labels = [bar.value for bar in bars], [f"{bar.name}  {bar.label}" for bar in bars]
        _bars(axes, title, values, labels, [LIMIT_COLORS[bar.name] for bar in bars], ink)
        axes.set_xlim(0, 2.6 * max(values))


@final
@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: of what it stands for.
        value: its length.
        label: the number at its end.
    """

    name: str
    value: float
    label: str


def _limits(limits: Limits) -> dict[str, list[Bar]]:
    cost = limits.cost
    bills = {"all trained": cost.all_trained, "frozen": cost.now, "at the limit": cost.limit}
    times = {"all trained": limits.full_seconds, "frozen": limits.live_seconds, "from the cache": limits.cached_seconds}
    return {
        "saved for backward": [Bar(name, bill.saved_bytes, human(bill.saved_bytes)) for name, bill in bills.items()],
        "operations a step": [Bar(name, bill.flops, flops(bill.flops)) for name, bill in bills.items()],
        "time a step": [Bar(name, seconds, f"{1000 * seconds:.2f} ms") for name, seconds in times.items()],
    }


def _bars(
    axes: Axes, title: str, values: Sequence[float], labels: Sequence[str], colors: Sequence[str], ink: Ink
) -> None:
    bars = axes.barh(range(len(values)), values, color=colors, height=0.68)
    axes.bar_label(bars, labels, padding=5, color=ink.dark, fontsize=10)
    axes.set_title(title, loc="left", color=ink.dark, fontsize=11)
    axes.set(xticks=[], yticks=[])
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(ink.rule)


def _label_ends(axes: Axes, outcome: Outcome) -> None:
    """Names each curve at its end; labels that would lie on each other are moved apart."""
    least = 0.075
    ends = sorted(outcome.scores, key=lambda score: score.accuracy.mean, reverse=True)
    height = 2.0
    for score in ends:
        height = min(score.accuracy.mean, height - least)
        axes.annotate(
            f"{score.way}  {100 * score.accuracy.mean:.1f} %",
            (outcome.budget.steps, height),
            xytext=(9, 0),
            textcoords="offset points",
            color=COLORS[score.way],
            fontsize=11,
            verticalalignment="center",
            annotation_clip=False,
        )


def _bare(axes: Axes, ink: Ink) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(ink.soft)
    axes.tick_params(colors=ink.soft, length=0)
    axes.set_axisbelow(True)
