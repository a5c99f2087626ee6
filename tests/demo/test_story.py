"""The demo in words: the words follow the numbers, whatever they are."""

from dataclasses import replace

import pytest

from demo.facts import Facts
from frostline.demo.by_hand import ByHand
from frostline.demo.framework import Framework
from frostline.demo.outcome import Outcome, Score, Spread
from frostline.demo.scans import NEW, one_of_each
from frostline.demo.sharing import Gradients
from frostline.demo.story import against, by_hand, excerpt, memory, proof, story, times


def score(way: str, accuracy: float, kept: float, cost: int) -> Score:
    curve = (Spread((0.2, 0.2)), Spread((accuracy, accuracy)))
    return Score(way, curve, Spread((kept, kept)), cost / 1000, cost, cost, cost)  # type: ignore[arg-type]


def told(outcome: Outcome, *scores: Score) -> str:
    made = replace(outcome, scores=scores, before=Spread((0.99, 0.99)))
    return story(made).replace("\u00a0", " ")


def test_the_story_when_the_frozen_trunk_is_behind(outcome: Outcome) -> None:
    scores = score("frozen trunk", 0.9, 0.99, 1), score("full fine-tuning", 0.95, 0.8, 2)
    assert told(outcome, *scores, score("from scratch", 0.94, 0.1, 2)) == (
        "From 20 labelled scans of 5 to 9 the network with the frozen trunk reads 90.0 ± 0.0 % of the unseen ones, "
        "behind full fine-tuning (95.0 ± 0.0 %) and training from scratch (94.0 ± 0.0 %); a step takes 0.50 × the time "
        "of a fine-tuning step, 0.50 × its optimizer state and 0.50 × its memory for the backward pass; and on 0 to 4 "
        "its trunk still reads 99.0 %, as before, where the fine-tuned one fell from 99.0 % to 80.0 %."
    )


def test_the_story_when_all_is_the_other_way_round(outcome: Outcome) -> None:
    scores = score("frozen trunk", 0.9, 0.8, 40), score("full fine-tuning", 0.8, 1.0, 10)
    assert told(outcome, *scores, score("from scratch", 0.95, 0.1, 10)) == (
        "From 20 labelled scans of 5 to 9 the network with the frozen trunk reads 90.0 ± 0.0 % of the unseen ones, "
        "ahead of full fine-tuning (80.0 ± 0.0 %) and behind training from scratch (95.0 ± 0.0 %); a step takes 4.00 × "
        "the time of a fine-tuning step, 4.00 × its optimizer state and 4.00 × its memory for the backward pass; and "
        "on 0 to 4 its trunk fell from 99.0 % to 80.0 %, where the fine-tuned one rose from 99.0 % to 100.0 %."
    )


@pytest.mark.parametrize(
    ("one", "other", "word"),
    [
        ((0.9, 0.8), (0.8, 0.7), "ahead of"),
        ((0.7, 0.6), (0.8, 0.7), "behind"),
        ((0.9, 0.6), (0.8, 0.7), "level with"),
        ((0.9, 0.7), (0.8, 0.7), "level with"),
    ],
)
def test_a_difference_counts_when_every_run_agrees(one: tuple[float, ...], other: tuple[float, ...], word: str) -> None:
    assert against(Spread(one), Spread(other)) == word


def test_ratios_and_memories() -> None:
    assert (times(1, 3), times(1, 30), times(1, 3000)) == ("0.33 ×", "0.033 ×", "0.00033 ×")
    assert memory(Spread((0.9, 0.8)), Spread((0.8, 0.9))) == "changed from 85.0 % to 85.0 %"


def test_the_spread_is_that_of_a_sample() -> None:
    assert str(Spread((0.9, 0.92, 0.94))) == "92.0 ± 2.0 %"
    assert str(Spread((0.9,))) == "90.0 ± 0.0 %"


def test_the_proof_counts(outcome: Outcome, facts: Facts) -> None:
    assert proof(outcome) == facts.proof


def test_by_hand_counts(outcome: Outcome, facts: Facts) -> None:
    made = replace(outcome, by_hand=ByHand("", ("a", "b"), 0.99, 0.5, 150))
    assert by_hand(made) == (
        f"{facts.by_hand} With the old head back on, 150 of 200 unseen scans of 0 to 4 get other scores than before "
        "(99.0 % right before, 50.0 % now)."
    )


def test_an_excerpt_says_what_it_leaves_out() -> None:
    assert excerpt("1\n2\n3\n4\n5\n6") == "1\n2\n3\n4\n... and 2 lines more of this kind"
    assert excerpt("1\n2\n3\n4") == "1\n2\n3\n4"


def test_a_shared_layer_trains_in_one_model_only(framework: Framework) -> None:
    shared = framework.share(one_of_each(NEW))
    assert shared.m0.weight is not None
    assert shared.m0.weight > 0.01
    assert shared.m1 == Gradients(weight=None, input=pytest.approx(shared.m0.input, rel=1e-5))
    assert shared.m1.input > 0.01
    assert (shared.values, shared.changed_by_m0, shared.changed_by_m1) == (1024, 1024, 0)
    assert shared.seen_by_m1 > 0.001
