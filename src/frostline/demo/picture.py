"""The picture of the demo: accuracy as it was learned, and what a step costs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from frostline._core.reporting.units import flops, human
from frostline.demo.data import NEW, OLD, one_of_each
from frostline.demo.outcome import Outcome, Way
from frostline.demo.sections import COLORS

INK = "#18222d"
CACHE_COLOR = "#2a9d6f"


def picture(outcome: Outcome, suffix: str) -> bytes:
    """The picture as a file with this suffix, `.png`, `.svg` or `.pdf`; the same numbers make the same bytes."""
    form, data = suffix.lower().removeprefix("."), io.BytesIO()
    metadata = {"png": {}, "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")), "pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "frostline", "svg.fonttype": "none"}):
        # Transparent on a page, whose colors may be dark.
        drawn(outcome).savefig(data, format=form, dpi=160, metadata=metadata[form], transparent=form == "svg")
    return data.getvalue()


def drawn(outcome: Outcome) -> Figure:
    """The figure, 12 by 8 inches: ten digits, the curves of three ways, and four panels of bars."""
    style: Any = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    with rc_context({**style, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 8), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        parts: Any = figure.subfigures(3, 1, height_ratios=(1.2, 4, 1.8))
        digits, curves, bars = parts
        for axes, some, title in zip(digits.subplots(1, 2), (OLD, NEW), ("learned first", "learned then"), strict=True):
            axes.imshow(np.hstack(list(one_of_each(some).pixels[:, 0])), cmap="Blues" if some is OLD else "Oranges")
            axes.set_title(title)
            axes.axis("off")
        _draw_curves(curves.subplots(), outcome)
        _draw_costs(bars.subplots(1, 4), outcome)
    return figure


def _draw_curves(axes: Axes, outcome: Outcome) -> None:
    steps, end = (0, *outcome.settings.tested_after), 2.0
    for result in sorted((outcome[way] for way in COLORS), key=lambda result: -fmean(result.accuracy)):
        means, color = [fmean(point) for point in result.curve], COLORS[result.way]
        low, high = ([edge(point) for point in result.curve] for edge in (min, max))
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(steps, means, color=color, linewidth=2.2, marker="o", markersize=4, clip_on=False)
        end = min(means[-1], end - 0.075)  # the labels of curves that end together do not touch
        label, place = f"{result.way}  {100 * means[-1]:.1f} %", (steps[-1], end)
        axes.annotate(label, place, (9, 0), textcoords="offset points", color=color, va="center", annotation_clip=False)
    axes.set(xlim=(0, steps[-1]), ylim=(0, 1.02), xticks=(0, *outcome.settings.tested_after[2:]), xlabel="steps")
    runs = outcome.settings.runs
    axes.set_title(f"accuracy on test images of 5 to 9: mean of {runs} runs, and from the worst to the best")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", alpha=0.3)


def _draw_costs(places: Sequence[Axes], outcome: Outcome) -> None:
    bills = (outcome.cost.all_trained, outcome.cost.now, outcome.cost.limit)
    ways: tuple[Way, ...] = ("full fine-tuning", "frozen trunk", "frozen, from cache")
    panels: dict[str, tuple[list[float], Callable[[Any], str]]] = {
        "time a step": ([1000 * outcome[way].step_seconds for way in ways], "{:.2f} ms".format),
        "operations a step": ([bill.flops for bill in bills], flops),
        "saved for backward": ([bill.saved_bytes for bill in bills], human),
        "optimizer state": ([bill.optimizer_bytes for bill in bills], human),
    }
    for axes, (title, (values, shown)) in zip(places, panels.items(), strict=True):
        bars = axes.barh(range(3), values, color=[COLORS.get(way, CACHE_COLOR) for way in ways], height=0.68)
        names = ("everything trained", "trunk frozen", "from the cache" if title == "time a step" else "the least")
        axes.bar_label(bars, [f"{shown(value)}  {name}" for value, name in zip(values, names, strict=True)], padding=5)
        axes.set(xticks=[], yticks=[], xlim=(0, 2.8 * max(values)), title=title)
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)
