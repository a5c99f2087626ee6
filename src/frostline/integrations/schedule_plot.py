"""Plotting the chart of a schedule."""

from __future__ import annotations

import io

from matplotlib import rc_context
from matplotlib.figure import Figure

from frostline._core.errors import UnsupportedError
from frostline.schedules.chart import Chart

_FORMS = ("pdf", "png", "svg")
_DATES = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def picture(chart: Chart, suffix: str) -> bytes:
    """Returns the picture of a chart as the bytes of a file; equal charts give equal bytes.

    Args:
        chart: the chart.
        suffix: the suffix of the file: ".png", ".svg" or ".pdf".

    Raises:
        UnsupportedError: the file has another suffix.
    """
    form = suffix.lower().removeprefix(".")
    if form not in _FORMS:
        reason = f"needs one of these {len(_FORMS)} suffixes: {', '.join(f'.{each}' for each in _FORMS)}."
        raise UnsupportedError(f"picture(chart, {suffix!r})", reason, "Name the file schedule.png.")
    data = io.BytesIO()
    with rc_context({"svg.hashsalt": "frostline", "svg.fonttype": "none"}):
        _figure(chart).savefig(data, format=form, dpi=160, metadata=_DATES[form])
    return data.getvalue()


def _figure(chart: Chart) -> Figure:
    figure = Figure(figsize=(11, 1.6 + 0.28 * len(chart.rows)), layout="constrained")
    axes = figure.add_subplot()
    edges = [min(column * chart.width, chart.steps) for column in range(len(chart.cells[0]) + 1)]
    top = max(1.0, *(max(row) for row in chart.cells))
    mesh = axes.pcolormesh(edges, range(len(chart.rows) + 1), chart.cells, cmap="YlGn", vmin=0.0, vmax=top)
    axes.set_yticks([row + 0.5 for row in range(len(chart.rows))], chart.rows)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel("step")
    axes.set_title(type(chart.schedule).__name__, loc="left")
    axes.spines[:].set_visible(False)
    figure.colorbar(mesh, ax=axes, label="factor of the learning rate; 0 is frozen", pad=0.01)
    return figure
