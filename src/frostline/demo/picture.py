"""The drawings of the demo on paper: one sheet as PNG, SVG or PDF, or single ones for a page."""

from __future__ import annotations

import io
from textwrap import fill
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from frostline.demo.drawing import Ink, draw_costs, draw_curves, draw_digits, draw_limits
from frostline.demo.outcome import Outcome
from frostline.demo.story import story

LIGHT = Ink(dark="#18222d", soft="#5b6876", rule="#dfe4ea")


def picture(outcome: Outcome, suffix: str) -> bytes:
    """The sheet as the bytes of a file.

    Args:
        outcome: what to show.
        suffix: of the file, ".png", ".svg" or ".pdf".
    """
    return saved(sheet(outcome), suffix.lower().removeprefix("."))


def saved(figure: Figure, form: str, **options: Any) -> bytes:
    """A figure as the bytes of a file; the same numbers make the same bytes."""
    data = io.BytesIO()
    dates = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with rc_context({"svg.hashsalt": "frostline", "svg.fonttype": "none"}):
        figure.savefig(data, format=form, dpi=160, metadata=dates[form], **options)
    return data.getvalue()


def sheet(outcome: Outcome) -> Figure:
    """Everything on 12 by 11.4 inches."""
    figure = Figure(figsize=(12, 11.4), facecolor="white")
    title, text = "Learning 5 to 9 while what knows 0 to 4 stays frozen", fill(story(outcome), 138)
    figure.text(0.04, 0.973, title, fontsize=21, weight="bold", color=LIGHT.dark, va="top")
    figure.text(0.04, 0.931, text, fontsize=11, color=LIGHT.soft, va="top", linespacing=1.55)
    draw_digits(_ten(figure, _box(figure, 0.722, 0.806)), outcome.budget.labelled, LIGHT)
    axes = _with_margin(figure, _box(figure, 0.372, 0.66))
    draw_curves(axes, outcome, LIGHT)
    said = f"accuracy on unseen scans of 5 to 9: mean of {outcome.budget.runs} runs, from the worst to the best"
    axes.set_title(said, loc="left", color=LIGHT.dark, fontsize=11, pad=12)
    draw_costs(_four(figure, _box(figure, 0.183, 0.292)), outcome, LIGHT)
    draw_limits(_three(figure, _box(figure, 0.025, 0.125)), outcome, LIGHT)
    return figure


def digits(outcome: Outcome, ink: Ink) -> Figure:
    """The digits alone."""
    figure = Figure(figsize=(9, 1.15))
    draw_digits(_ten(figure, _box(figure, 0, 0.78, left=0, right=1)), outcome.budget.labelled, ink)
    return figure


def curves(outcome: Outcome, ink: Ink) -> Figure:
    """The learning curves alone."""
    figure = Figure(figsize=(9, 3.9))
    draw_curves(_with_margin(figure, _box(figure, 0.13, 0.97, left=0.055, right=0.99)), outcome, ink)
    return figure


def costs(outcome: Outcome, ink: Ink) -> Figure:
    """The costs alone."""
    figure = Figure(figsize=(9, 1.45))
    draw_costs(_four(figure, _box(figure, 0.02, 0.8, left=0, right=1)), outcome, ink)
    return figure


def limits(outcome: Outcome, ink: Ink) -> Figure:
    """How near the limit a step is, alone."""
    figure = Figure(figsize=(9, 1.45))
    draw_limits(_three(figure, _box(figure, 0.02, 0.8, left=0, right=1)), outcome, ink)
    return figure


def _box(figure: Figure, bottom: float, top: float, *, left: float = 0.065, right: float = 0.965) -> SubplotSpec:
    return figure.add_gridspec(1, 1, left=left, right=right, top=top, bottom=bottom)[0]


def _ten(figure: Figure, spec: SubplotSpec) -> list[Axes]:
    cells = spec.subgridspec(1, 11, width_ratios=[1] * 5 + [0.5] + [1] * 5, wspace=0.08)
    return [figure.add_subplot(cells[place]) for place in range(11) if place != 5]


def _with_margin(figure: Figure, spec: SubplotSpec) -> Axes:
    # To the right there are the names of the curves.
    return figure.add_subplot(spec.subgridspec(1, 2, width_ratios=[1, 0.27], wspace=0)[0])


def _four(figure: Figure, spec: SubplotSpec) -> list[Axes]:
    # To the left there are the names of the bars.
    cells = spec.subgridspec(1, 5, width_ratios=[0.62, 1, 1, 1, 1], wspace=0.1)
    return [figure.add_subplot(cells[place]) for place in range(1, 5)]


def _three(figure: Figure, spec: SubplotSpec) -> list[Axes]:
    cells = spec.subgridspec(1, 3, wspace=0.06)
    return [figure.add_subplot(cells[place]) for place in range(3)]
