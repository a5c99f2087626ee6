"""The five ways, the proof, and the trunk that is frozen by hand: the same in every framework."""

from collections import Counter

import numpy as np
import pytest

from demo.facts import Facts
from demo.performed import ONCE
from frostline import MovedError
from frostline.demo.data import NEW, one_of_each, split
from frostline.demo.experiment import Run, perform, train
from frostline.demo.learner import Framework, Learner
from frostline.demo.outcome import WAYS, Outcome, Settings

# Of 8 images. Forward: three convolutions of 3 x 3 and the head, two operations for each product.
FORWARD = 8 * (2 * 64 * 9 * 16 + 2 * 64 * 9 * 16 * 32 + 2 * 16 * 9 * 32 * 32 + 2 * 128 * 5)
HEAD = 8 * 2 * 128 * 5
FIRST = 8 * 2 * 64 * 9 * 16


def learner_of(framework: Framework) -> type[Learner]:
    return type(framework.new_learner(0, 0.1))


def test_the_whole_trunk_is_frozen(outcome: Outcome, facts: Facts) -> None:
    assert set(outcome.watched) == facts.parameters | facts.statistics


def test_a_frozen_trunk_forgets_nothing(outcome: Outcome) -> None:
    assert outcome["frozen trunk"].old_accuracy == outcome["frozen, from cache"].old_accuracy == outcome.old_before
    assert min(outcome.old_before) > 0.5
    assert outcome["from scratch"].old_accuracy is None


def test_what_each_way_trains_and_its_optimizer_keeps(run: Run) -> None:
    totals = {way: run.learners[way].report().totals for way in WAYS}
    assert {totals[way].params for way in WAYS} == {14_773}
    frozen = ("frozen trunk", "frozen, from cache")
    assert [totals[way].frozen_params for way in frozen] == [14_773 - 645] * 2
    assert [totals[way].frozen_params for way in ("full fine-tuning", "from scratch")] == [0, 0]
    # Two moments of 4 bytes a value, counts aside.
    assert [totals[way].optimizer_bytes for way in frozen] == [2 * 4 * 645] * 2
    assert totals["full fine-tuning"].optimizer_bytes == totals["from scratch"].optimizer_bytes == 2 * 4 * 14_773


def test_the_account_counts_what_a_pencil_counts(outcome: Outcome) -> None:
    cost = outcome.cost
    assert (FORWARD, HEAD) == (7_235_584, 10_240)
    assert (cost.now.forward_flops, cost.now.input_gradient_flops, cost.now.weight_gradient_flops) == (FORWARD, 0, HEAD)
    # The first layer needs no gradient of the images.
    everything = (FORWARD, FORWARD - FIRST, FORWARD)
    trained = cost.all_trained
    assert (trained.forward_flops, trained.input_gradient_flops, trained.weight_gradient_flops) == everything
    assert cost.limit.flops == FORWARD + HEAD
    assert (cost.now.optimizer_bytes, trained.optimizer_bytes) == (2 * 4 * 645, 2 * 4 * 14_773)
    assert cost.culprit is None


def test_only_what_the_head_needs_is_saved_for_backward(outcome: Outcome) -> None:
    features, scores = 8 * 128 * 4, 8 * 5 * 4
    assert features < outcome.cost.limit.saved_bytes <= features + 2 * scores


def test_counting_the_cost_leaves_the_network_as_it_was(run: Run) -> None:
    old, images = run.learners["full fine-tuning"], run.images
    before = old.scores(images.old_test)
    assert old.cost(images.new_train[np.arange(8)]).now.saved_bytes > 0
    assert old.scores(images.old_test).tobytes() == before.tobytes()


def test_the_same_seed_gives_the_same_numbers_but_for_the_seconds(
    framework: Framework, settings: Settings, outcome: Outcome
) -> None:
    first, second = vars(outcome), vars(perform(framework, settings, lambda: None))
    for facts in (first, second):
        assert all(result.step_seconds > 0 for result in facts["results"])
    for name, fact in first.items():
        if name == "results":
            for one, other in zip(fact, second[name], strict=True):
                assert (one.way, one.curve, one.old_accuracy) == (other.way, other.curve, other.old_accuracy)
        elif name in ("cost", "report"):
            assert fact.to_dict() == second[name].to_dict()
        else:
            assert fact == second[name]


def test_the_runs_differ(outcome: Outcome) -> None:
    assert all(len(set(result.curve[0])) == 2 for result in outcome.results)


def test_every_step_has_its_time(run: Run, settings: Settings) -> None:
    assert {way: len(seconds) for way, seconds in run.seconds.items()} == dict.fromkeys(WAYS, settings.steps)


def test_every_piece_of_work_is_reported(pieces: int) -> None:
    assert pieces == 2 * (1 + 6)


def test_no_image_is_both_learned_and_tested_on() -> None:
    images = split(np.random.default_rng(3), labelled=10)
    assert [len(part) for part in (images.old_train, images.old_test, images.new_train, images.new_test)] == [
        701,
        200,
        50,
        846,
    ]
    for train_images, test_images in ((images.old_train, images.old_test), (images.new_train, images.new_test)):
        # All images of the set differ, so that the pixels are the image.
        seen = {image.tobytes() for image in train_images.pixels}
        assert not seen & {image.tobytes() for image in test_images.pixels}
    assert Counter(images.new_train.labels.tolist()) == dict.fromkeys(range(5), 10)


def test_a_trunk_that_moves_stops_the_demo(
    framework: Framework, settings: Settings, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the experiment with a freezing that is not one."""
    learner = learner_of(framework)
    freeze = learner.freeze
    frozen: list[Learner] = []

    def freeze_the_second_only(self: Learner) -> None:
        frozen.append(self)
        # The first is the frozen trunk; the cache needs a trunk that really is frozen.
        self.freeze_by_hand() if len(frozen) == 1 else freeze(self)

    monkeypatch.setattr(learner, "freeze", freeze_the_second_only)
    with framework.repeatable(), pytest.raises(MovedError) as caught:
        train(framework, settings, 0, lambda: None)
    assert {movement.path for movement in caught.value.moved} == facts.moved


def test_freezing_by_hand_is_caught(outcome: Outcome, facts: Facts) -> None:
    assert set(outcome.moved) == facts.moved
    assert outcome.message.startswith(facts.alarm)
    assert outcome.changed_scores == 200


def test_freezing_by_hand_is_not_caught_when_nothing_moves(
    framework: Framework, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the negative control: the same code on a trunk that is held."""
    learner = learner_of(framework)
    monkeypatch.setattr(learner, "freeze_by_hand", learner.freeze)
    found = perform(framework, ONCE, lambda: None)
    assert (found.message, found.moved, found.changed_scores) == ("", (), 0)
    assert found["frozen by hand"].old_accuracy == found.old_before


def test_the_cache_holds_the_features_of_all_labelled_images(outcome: Outcome) -> None:
    assert outcome.cached_bytes > 20 * 128 * 4


def test_in_pytorch_the_head_learns_bitwise_the_same_from_the_cache(outcome: Outcome, run: Run, name: str) -> None:
    """A compiled step of JAX groups its operations otherwise, so that there the last bit may differ."""
    live, cached = (run.learners[way].scores(run.images.new_test) for way in ("frozen trunk", "frozen, from cache"))
    assert live.shape == (876, 5)
    assert live.tobytes() == cached.tobytes() or name == "jax"
    assert outcome.score_difference < (1e-5 if name == "jax" else 1e-30)


def test_features_that_are_not_the_trunks_are_seen(framework: Framework, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a cache of other images teaches another head."""
    learner = learner_of(framework)
    honest = learner.cached
    reverse = np.arange(20)[::-1]
    monkeypatch.setattr(learner, "cached", lambda self, images, folder: honest(self, images[reverse], folder))
    assert perform(framework, ONCE, lambda: None).score_difference > 0.01


def test_a_shared_layer_trains_in_one_model_only(framework: Framework) -> None:
    shared = framework.share_a_layer(one_of_each(NEW))
    of_m0, of_m1 = shared.weight_gradients
    assert of_m0 is not None
    assert of_m0 > 0.01
    assert of_m1 is None
    assert shared.input_gradients[1] == pytest.approx(shared.input_gradients[0], rel=1e-5)
    assert shared.input_gradients[1] > 0.01
    assert (shared.values, shared.changed) == (1024, (1024, 0))
    assert shared.output_change > 0.001
