"""The demo in words: its set-up, and its story in one sentence, put together from the numbers, whatever they are."""

from __future__ import annotations

import re

from frostline._core.reporting.table import human
from frostline.demo.budget import Budget
from frostline.demo.outcome import Outcome, Spread
from frostline.demo.words import Words


def setting(budget: Budget, words: Words) -> str:
    """The set-up, as a paragraph."""
    return (
        "1,797 scans of handwritten digits (scikit-learn, 8 × 8 pixels). A small convolutional network with batch norm "
        f"learns 0 to 4, in {words.framework}. Then it gets a new head and learns 5 to 9 from {budget.labelled} "
        "labelled scans of each, in three ways with the same scans, batches and steps: with its trunk frozen, with "
        f"everything trained on (full fine-tuning), and as a new network from scratch. {budget.runs} runs, each with "
        f"other scans and another network; {budget.steps} steps of {budget.batch} scans; AdamW with weight decay and "
        f"a learning rate of {budget.lr}, in every way and everywhere, handed all parameters, the frozen ones too."
    )


def story(outcome: Outcome) -> str:
    """What the frozen trunk gains and loses against the other two ways."""
    frozen, full, scratch = outcome.scores
    sentence = (
        f"From {5 * outcome.budget.labelled} labelled scans of 5 to 9 the network with the frozen trunk reads "
        f"{frozen.accuracy} of the unseen ones, {compared(frozen.accuracy, full.accuracy, scratch.accuracy)}; "
        f"a step takes {times(frozen.step_seconds, full.step_seconds)} the time of a fine-tuning step, "
        f"{times(frozen.optimizer_bytes, full.optimizer_bytes)} its optimizer state and "
        f"{times(frozen.saved_bytes, full.saved_bytes)} its memory for the backward pass; "
        f"and on 0 to 4 its trunk {memory(frozen.kept, outcome.before)}, "
        f"where the fine-tuned one {memory(full.kept, outcome.before)}."
    )
    # A number stays on one line with its unit and its spread.
    return re.sub(r" (?=[±×%])|(?<=±) ", "\u00a0", sentence)


def compared(frozen: Spread, full: Spread, scratch: Spread) -> str:
    """How the frozen trunk does against the other two."""
    with_full, with_scratch = against(frozen, full), against(frozen, scratch)
    again = "" if with_full == with_scratch else f"{with_scratch} "
    return f"{with_full} full fine-tuning ({full}) and {again}training from scratch ({scratch})"


def proof(outcome: Outcome) -> str:
    """What the guard proved."""
    budget, watched, words = outcome.budget, outcome.watched, outcome.words
    parameters = sum(path.endswith((".weight", ".bias")) for path in watched)
    return (
        f"In each of {budget.runs} runs all {len(watched)} frozen {words.arrays} are bitwise what they were, "
        f"{parameters} parameters and {len(watched) - parameters} {words.statistics} of batch norm, after "
        f"{budget.steps} steps of AdamW with weight decay and {words.tempted(budget)}."
    )


def by_hand(outcome: Outcome) -> str:
    """What became of the trunk that was frozen by hand."""
    hand, words = outcome.by_hand, outcome.words
    return (
        f"The same routine after {words.by_hand} alone: {outcome.budget.steps} steps move {len(hand.moved)} "
        f"{words.arrays}. With the old head back on, {hand.changed} of {outcome.unseen_old} unseen scans of 0 to 4 get "
        f"other scores than before ({100 * hand.before:.1f} % right before, {100 * hand.after:.1f} % now)."
    )


def near_the_limit(outcome: Outcome) -> str:
    """What the frozen trunk costs against the least that it could, and from the cache."""
    limits = outcome.limits
    cost, full, cached = limits.cost, limits.full_seconds, limits.cached_seconds
    apart = f"differs from the one that learnt live by {limits.apart:.0e} at most"
    same = "is bitwise the one that learnt live" if limits.other == 0 else apart
    return (
        f"With the frozen trunk a step is at {cost.flop_percent:.0f} % of the FLOP limit and {cost.byte_percent:.0f} % "
        f"of the limit of what is saved for backward. From the cache ({human(limits.cached_bytes)} for "
        f"{5 * outcome.budget.labelled} scans) it takes {times(cached, limits.live_seconds)} the time of a live step, "
        f"{times(cached, full)} that of a step that trains everything; the head that learnt from it {same}."
    )


def excerpt(message: str) -> str:
    """The first thing that the guard has to say, and how much there is besides."""
    first, rest = message.splitlines()[:4], message.splitlines()[4:]
    return "\n".join([*first, *([f"... and {len(rest)} lines more of this kind"] if rest else [])])


def against(one: Spread, other: Spread) -> str:
    """How one way compares with another: a difference counts when every run agrees on it.

    Example:
        >>> against(Spread((0.9, 0.8)), Spread((0.8, 0.7)))
        'ahead of'
        >>> against(Spread((0.9, 0.8)), Spread((0.8, 0.9)))
        'level with'
    """
    differences = [mine - theirs for mine, theirs in zip(one.values, other.values, strict=True)]
    if all(difference > 0 for difference in differences):
        return "ahead of"
    return "behind" if all(difference < 0 for difference in differences) else "level with"


def times(part: float, whole: float) -> str:
    """A ratio for people.

    Example:
        >>> times(1, 2), times(3, 2), times(1, 400)
        ('0.50 ×', '1.50 ×', '0.0025 ×')
    """
    ratio = part / whole
    return f"{ratio:.2f} ×" if ratio >= 0.1 else f"{ratio:.2g} ×"


def memory(after: Spread, before: Spread) -> str:
    """What became of what was known.

    Example:
        >>> memory(Spread((0.9,)), Spread((0.99,)))
        'fell from 99.0 % to 90.0 %'
    """
    if after == before:
        return f"still reads {100 * after.mean:.1f} %, as before"
    verb = "fell" if after.mean < before.mean else "rose" if after.mean > before.mean else "changed"
    return f"{verb} from {100 * before.mean:.1f} % to {100 * after.mean:.1f} %"
