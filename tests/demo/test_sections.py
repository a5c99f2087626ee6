"""The demo in words: the words follow the numbers, whatever they are."""

from dataclasses import replace

import pytest

from demo.facts import Facts
from frostline.demo.outcome import WAYS, Outcome, Result, Runs
from frostline.demo.sections import by_hand, near_the_limit, proof, sections, summary


def told(outcome: Outcome, frozen: Runs, full: Runs, scratch: Runs, remembered: Runs = (0.99, 0.99)) -> str:
    accuracies = dict(zip(WAYS, (frozen, frozen, full, scratch, frozen), strict=True))
    old = {"full fine-tuning": (0.8, 0.8), "from scratch": None}
    times = dict(zip(WAYS, (0.5, 0.1, 1, 1, 1), strict=True))
    results = tuple(Result(way, (accuracies[way],), old.get(way, remembered), times[way]) for way in WAYS)
    bills = {
        "now": replace(outcome.cost.now, saved_bytes=1, optimizer_bytes=1),
        "all_trained": replace(outcome.cost.all_trained, saved_bytes=400, optimizer_bytes=30),
    }
    made = replace(outcome, results=results, old_before=(0.99, 0.99), cost=replace(outcome.cost, **bills))
    return summary(made).replace("\u00a0", " ")


def test_the_summary_when_the_frozen_trunk_is_behind(outcome: Outcome) -> None:
    assert told(outcome, (0.9, 0.9), (0.95, 0.95), (0.94, 0.96)) == (
        "With the trunk frozen a step takes 0.50 × the time of one that fine-tunes everything (0.10 × with cached "
        "features), 0.033 × its optimizer state and 0.0025 × its memory for the backward pass. On 0 to 4 the frozen "
        "trunk still reads 99.0 %, as before; the fine-tuned one fell from 99.0 % to 80.0 %. The price is accuracy: "
        "from 20 labelled images of 5 to 9 the frozen trunk reads 90.0 ± 0.0 % of the test images, full fine-tuning "
        "95.0 ± 0.0 %, training from scratch 95.0 ± 1.4 %."
    )


def test_the_summary_when_the_frozen_trunk_is_ahead_and_moved(outcome: Outcome) -> None:
    text = told(outcome, (0.9, 0.9), (0.8, 0.8), (0.95, 0.95), remembered=(1.0, 1.0))
    assert "the frozen trunk rose from 99.0 % to 100.0 %; the fine-tuned one fell" in text
    assert text.endswith(
        "80.0 %. From 20 labelled images of 5 to 9 the frozen trunk reads 90.0 ± 0.0 % of the test images, full "
        "fine-tuning 80.0 ± 0.0 %, training from scratch 95.0 ± 0.0 %."
    )


@pytest.mark.parametrize(
    ("frozen", "full", "is_behind"),
    [
        ((0.9, 0.8), (0.8, 0.7), False),
        ((0.7, 0.6), (0.8, 0.7), True),
        ((0.9, 0.6), (0.8, 0.7), False),
        ((0.9, 0.7), (0.8, 0.7), False),
        ((0.8, 0.6), (0.8, 0.7), False),
    ],
)
def test_accuracy_is_the_price_when_every_run_agrees(
    outcome: Outcome, frozen: Runs, full: Runs, is_behind: bool
) -> None:
    assert ("The price is accuracy" in told(outcome, frozen, full, full)) is is_behind


def test_the_spread_is_that_of_a_sample(outcome: Outcome) -> None:
    assert "reads 92.0 ± 2.0 % of" in told(outcome, (0.9, 0.92, 0.94), (0.9, 0.9, 0.9), (0.9, 0.9, 0.9))
    assert "reads 90.0 ± 0.0 % of" in told(outcome, (0.9,), (0.9,), (0.9,))


def test_the_proof_counts(outcome: Outcome, facts: Facts) -> None:
    assert proof(outcome) == facts.proof


def test_by_hand_counts(outcome: Outcome, facts: Facts) -> None:
    assert by_hand(replace(outcome, moved=("a", "b"), changed_scores=150)) == facts.by_hand


def test_the_limit_and_the_cache(outcome: Outcome, name: str) -> None:
    results = {"frozen trunk": 0.004, "frozen, from cache": 0.001}
    made = tuple(replace(r, step_seconds=results.get(r.way, 1)) for r in outcome.results)
    exact = replace(outcome, results=made, cached_bytes=12_288, score_difference=0.0)
    assert near_the_limit(exact) == (
        f"With the trunk frozen a step is at 100 % of the FLOP limit and {100 if name == 'torch' else 99} % of the "
        f"limit of what is saved for backward. frostline.{name}.FeatureCache keeps the features of 20 images in 12.0 "
        "KiB: from there a step takes 0.25 × the time of a live one, and the head learns bitwise the same."
    )
    rounded = replace(exact, score_difference=3e-7)
    assert near_the_limit(rounded).endswith("and the head learns scores that differ by 3e-07 at most.")


@pytest.mark.parametrize(
    ("message", "shown"),
    [("1\n2\n3\n4\n5\n6", "1\n2\n3\n4\n... and 2 more lines like these"), ("1\n2\n3\n4", "1\n2\n3\n4")],
)
def test_an_excerpt_says_what_it_leaves_out(outcome: Outcome, message: str, shown: str) -> None:
    (panel,) = (each.shown for each in sections(replace(outcome, message=message)) if "by hand" in each.title)
    assert str(panel.renderable) == shown  # type: ignore[union-attr]
