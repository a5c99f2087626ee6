"""The outcome in words and tables, for the terminal and the page. The words follow the numbers, whatever they are."""

from __future__ import annotations

import re
from statistics import fmean, stdev
from typing import NamedTuple, final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from frostline._core.reporting.units import flops, human
from frostline.demo.learner import Framework
from frostline.demo.outcome import WAYS, Outcome, Runs, Settings, Way

# Readable on white and on black.
COLORS: dict[Way, str] = {"frozen trunk": "#2589d0", "full fine-tuning": "#e0702a", "from scratch": "#8d7bd0"}


@final
class Section(NamedTuple):
    """A part of the page: a title, and below it a text, a table or a listing, or both."""

    title: str
    text: str
    shown: RenderableType | None = None


def setup(settings: Settings, framework: Framework) -> str:
    """The experiment in one paragraph."""
    return (
        "1,797 images of handwritten digits (scikit-learn, 8 × 8 pixels). A small convolutional network with batch norm"
        f" learns 0 to 4, in {framework.name}. Then it gets a new head and learns 5 to 9 from {settings.labelled} "
        "labelled images of each: with its trunk frozen, live or from cached features; with everything trained (full "
        "fine-tuning); as a new network from scratch; and with its trunk frozen by hand. "
        f"{settings.runs} runs, each with other images and another network; {settings.steps} steps of {settings.batch} "
        f"images; AdamW with weight decay and a learning rate of {settings.lr}, given all parameters, frozen or not."
    )


def summary(outcome: Outcome) -> str:
    """The gains of the frozen trunk, and then its price."""
    frozen, full, scratch, cached = (outcome[way] for way in (*COLORS, "frozen, from cache"))
    now, everything = outcome.cost.now, outcome.cost.all_trained
    is_behind = all(mine < theirs for mine, theirs in zip(frozen.accuracy, full.accuracy, strict=True))
    sentences = (
        f"With the trunk frozen a step takes {_times(frozen.step_seconds, full.step_seconds)} the time of one that "
        f"fine-tunes everything ({_times(cached.step_seconds, full.step_seconds)} with cached features), "
        f"{_times(now.optimizer_bytes, everything.optimizer_bytes)} its optimizer state and "
        f"{_times(now.saved_bytes, everything.saved_bytes)} its memory for the backward pass. "
        f"On 0 to 4 the frozen trunk {_remembered(frozen.old_accuracy, outcome.old_before)}; "
        f"the fine-tuned one {_remembered(full.old_accuracy, outcome.old_before)}. "
        f"{'The price is accuracy: from' if is_behind else 'From'} {5 * outcome.settings.labelled} labelled images of "
        f"5 to 9 the frozen trunk reads {_percent(frozen.accuracy)} % of the test images, "
        f"full fine-tuning {_percent(full.accuracy)} %, training from scratch {_percent(scratch.accuracy)} %."
    )
    # A number stays on one line with its unit and its spread.
    return re.sub(r" (?=[±×%])|(?<=±) ", "\u00a0", sentences)


def sections(outcome: Outcome) -> list[Section]:
    """All there is to show, but for the set-up and the summary."""
    package = outcome.framework.package
    first, rest = outcome.message.splitlines()[:4], outcome.message.splitlines()[4:]
    excerpt = "\n".join([*first, *([f"... and {len(rest)} more lines like these"] if rest else [])])
    panel = Panel(Text(excerpt), title="MovedError", title_align="left", border_style="red")
    about_ways = (
        f"Means and standard deviations of {outcome.settings.runs} runs, on {outcome.new_images} test images of 5 to "
        f"9, and on {outcome.old_images} of 0 to 4 with the old head put back on the trunk."
    )
    return [
        Section("Five ways to learn 5 to 9 after 0 to 4", about_ways, _ways(outcome)),
        Section("The cost of a step, and the least possible", near_the_limit(outcome), _costs(outcome)),
        Section(f"What is frozen: frostline.{package}.report(network)", "", outcome.report),
        Section(f"The proof: frostline.{package}.guard(network) around the training", proof(outcome)),
        Section("The same guard around freezing by hand", by_hand(outcome), panel),
        Section("One layer, trained in one model and constant in another", "", _uses(outcome)),
    ]


def proof(outcome: Outcome) -> str:
    """The guard's proof."""
    settings, watched = outcome.settings, outcome.watched
    parameters = sum(path.endswith((".weight", ".bias", ".scale", ".shift")) for path in watched)
    return (
        f"In each of {settings.runs} runs all {len(watched)} frozen tensors are bitwise unchanged, {parameters} "
        f"parameters and {len(watched) - parameters} running statistics of batch norm, after {settings.steps} steps of "
        "AdamW with weight decay, all in training mode."
    )


def by_hand(outcome: Outcome) -> str:
    """The fate of the trunk that was frozen by hand."""
    return (
        f"The same training after {outcome.framework.by_hand} alone: {outcome.settings.steps} steps move "
        f"{len(outcome.moved)} tensors. With the old head back on, {outcome.changed_scores} of {outcome.old_images} "
        "test images of 0 to 4 get other scores than before."
    )


def near_the_limit(outcome: Outcome) -> str:
    """The cost of a step with the frozen trunk beside the least possible, and from the cache."""
    cost, live, cached = outcome.cost, outcome["frozen trunk"], outcome["frozen, from cache"]
    difference = f"scores that differ by {outcome.score_difference:.0e} at most"
    return (
        f"With the trunk frozen a step is at {cost.flop_percent:.0f} % of the FLOP limit and {cost.byte_percent:.0f} % "
        f"of the limit of bytes saved for backward. frostline.{outcome.framework.package}.FeatureCache keeps the "
        f"features of {5 * outcome.settings.labelled} images in {human(outcome.cached_bytes)}: from there a step "
        f"takes {_times(cached.step_seconds, live.step_seconds)} the time of a live one, and the head learns "
        f"{'bitwise the same' if outcome.score_difference == 0 else difference}."
    )


def _ways(outcome: Outcome) -> Table:
    table = _table("", "5 to 9,\ntest %", "0 to 4,\nafter %", "ms a\nstep")
    for way, result in zip(WAYS, outcome.results, strict=True):
        old = "–" if result.old_accuracy is None else _percent(result.old_accuracy)
        name, ms = Text(way, COLORS.get(way, "")), f"{1000 * result.step_seconds:.2f}"
        table.add_row(name, _percent(result.accuracy), old, ms)
    return table


def _costs(outcome: Outcome) -> Table:
    table = _table("", "FLOPs", "saved for\nbackward", "optimizer\nstate")
    cost = outcome.cost
    for name, bill in (("everything trained", cost.all_trained), ("trunk frozen", cost.now), ("the least", cost.limit)):
        table.add_row(name, flops(bill.flops), human(bill.saved_bytes), human(bill.optimizer_bytes))
    return table


def _uses(outcome: Outcome) -> Group:
    shared = outcome.shared
    table = _table("", "m0 trains l2", "m1 holds it constant")
    weights = ("None" if norm is None else f"{norm:.6f}" for norm in shared.weight_gradients)
    table.add_row("gradient of l2.weight (norm)", *weights)
    table.add_row("gradient of the input of l2", *(f"{norm:.6f}" for norm in shared.input_gradients))
    table.add_row("values of l2.weight a step changes", *(f"{n:,} of {shared.values:,}" for n in shared.changed))
    table.add_row("a step of m0 moves l2(x) by", "", f"{shared.output_change:.6f}")
    return Group(Text(f"m0: l1, l2, l3\nm1: l1, frostline.{outcome.framework.package}.Frozen(l2), l3\n"), table)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", vertical="bottom", no_wrap=True)
    return table


def _remembered(after: Runs | None, before: Runs) -> str:
    now, then = fmean(after or ()), fmean(before)
    if after == before:
        return f"still reads {100 * now:.1f} %, as before"
    return f"{'fell' if now < then else 'rose'} from {100 * then:.1f} % to {100 * now:.1f} %"


def _percent(runs: Runs) -> str:
    """Mean and sample standard deviation."""
    return f"{100 * fmean(runs):.1f} ± {100 * stdev(runs) if len(runs) > 1 else 0.0:.1f}"


def _times(part: float, whole: float) -> str:
    """A ratio for people: 0.50 ×, 1.50 ×, 0.0025 ×."""
    ratio = part / whole
    return f"{ratio:.2f} ×" if ratio >= 0.1 else f"{ratio:.2g} ×"
