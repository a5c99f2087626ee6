"""What a step of the demo costs, could cost, and costs from the cache."""

from dataclasses import replace

import numpy as np
import pytest

from frostline.demo import limits, page
from frostline.demo.budget import Budget
from frostline.demo.contest import play
from frostline.demo.framework import Framework, Name
from frostline.demo.outcome import Outcome
from frostline.demo.story import near_the_limit

# Of 8 scans. Forward: three convolutions of 3 x 3 and the head, two operations for each product.
FORWARD = 8 * (2 * 64 * 9 * 16 + 2 * 64 * 9 * 16 * 32 + 2 * 16 * 9 * 32 * 32 + 2 * 128 * 5)
HEAD = 8 * 2 * 128 * 5
FIRST = 8 * 2 * 64 * 9 * 16


def test_the_account_counts_what_a_pencil_counts(outcome: Outcome) -> None:
    cost = outcome.limits.cost
    assert (FORWARD, HEAD) == (7_235_584, 10_240)
    assert (cost.now.forward_flops, cost.now.input_gradient_flops, cost.now.weight_gradient_flops) == (FORWARD, 0, HEAD)
    # The first layer needs no gradient of the scans.
    everything = (FORWARD, FORWARD - FIRST, FORWARD)
    trained = cost.all_trained
    assert (trained.forward_flops, trained.input_gradient_flops, trained.weight_gradient_flops) == everything
    assert cost.limit.flops == FORWARD + HEAD
    assert cost.culprit is None


def test_nothing_but_the_head_is_kept_for_backward(outcome: Outcome) -> None:
    features, scores = 8 * 128 * 4, 8 * 5 * 4
    assert features < outcome.limits.cost.limit.saved_bytes <= features + 2 * scores


def test_the_cache_holds_the_features_of_all_labelled_scans(outcome: Outcome) -> None:
    assert outcome.limits.cached_bytes > 20 * 128 * 4


def test_in_pytorch_the_cache_teaches_the_head_bit_for_bit(outcome: Outcome, name: Name) -> None:
    """A compiled step of JAX groups its operations otherwise, so that there the last bit may differ."""
    assert outcome.limits.values == 645
    assert outcome.limits.other == 0 or name == "jax"
    assert outcome.limits.apart < (1e-6 if name == "jax" else 1e-30)


def test_features_that_are_not_the_trunks_are_seen(
    framework: Framework, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a cache of other scans teaches another head."""
    run = play(framework, budget, 0, lambda stage: None)
    learner = type(run.old)
    honest = learner.cached
    monkeypatch.setattr(
        learner, "cached", lambda self, scans, folder: honest(self, scans[np.arange(len(scans))[::-1]], folder)
    )
    found = limits.explored(run, budget, lambda stage: None)
    assert found.other > 600
    assert found.apart > 0.01


def test_the_story_tells_of_the_limit_and_of_the_cache(outcome: Outcome) -> None:
    found = replace(outcome.limits, full_seconds=0.008, live_seconds=0.004, cached_seconds=0.001, cached_bytes=12_288)
    assert near_the_limit(replace(outcome, limits=replace(found, other=0))).endswith(
        "From the cache (12.0 KiB for 20 scans) it takes 0.25 × the time of a live step, 0.12 × that of a step that "
        "trains everything; the head that learnt from it is bitwise the one that learnt live."
    )
    assert near_the_limit(replace(outcome, limits=replace(found, other=3, apart=3e-7))).endswith(
        "the head that learnt from it differs from the one that learnt live by 3e-07 at most."
    )


def test_the_page_shows_the_bars(outcome: Outcome) -> None:
    text = page.page(outcome)
    for bar in ("all trained", "at the limit", "from the cache"):
        assert f">{bar}  " in text
    assert outcome.words.line in text


def test_the_numbers_are_in_the_json(outcome: Outcome) -> None:
    told = outcome.to_dict()["limits"]
    assert isinstance(told, dict)
    named = {"cost", "median_step_seconds", "cached_bytes", "largest_difference"}
    assert set(told) == named | {"head_values_other_than_live", "head_values"}
    assert all(np.isfinite(seconds) and seconds > 0 for seconds in told["median_step_seconds"].values())
