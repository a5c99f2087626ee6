"""The three ways, the proof, and the trunk that was frozen by hand: the same in every framework."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from demo.facts import Facts
from frostline import MovedError
from frostline.demo import by_hand, contest, perform
from frostline.demo.budget import Budget
from frostline.demo.contest import Run, play
from frostline.demo.framework import Framework, Learner
from frostline.demo.outcome import Outcome
from frostline.demo.scans import lesson


def quiet(stage: contest.Stage) -> None:
    pass


def learner_of(framework: Framework) -> type[Learner]:
    return type(framework.beginner(seed=0, lr=0.1))


@pytest.fixture
def alone(framework: Framework) -> Iterator[None]:
    with framework.alone():
        yield


@pytest.fixture
def run(framework: Framework, budget: Budget, alone: None) -> Run:
    return play(framework, budget, 0, quiet)


def test_what_is_frozen_is_the_whole_trunk(outcome: Outcome, facts: Facts) -> None:
    assert set(outcome.watched) == facts.parameters | facts.statistics


def test_a_frozen_trunk_forgets_nothing(run: Run) -> None:
    assert run.traces["frozen trunk"].kept == run.before > 0.5


def test_what_each_way_trains(outcome: Outcome) -> None:
    assert [score.trainable_params for score in outcome.scores] == [645, 14_773, 14_773]
    totals = outcome.report.totals
    assert (totals.params, totals.frozen_params) == (14_773, 14_773 - 645)
    # Two moments of 4 bytes a value, counts aside.
    assert totals.optimizer_bytes == 2 * 4 * 645


def test_saved_bytes_leave_the_network_as_it_was(framework: Framework, run: Run) -> None:
    before = run.old.scores(run.dealt.old_unseen)
    assert run.old.saved_bytes(run.dealt.old[np.arange(8)]) > 0
    assert run.old.scores(run.dealt.old_unseen).tobytes() == before.tobytes()


def test_the_same_seed_gives_the_same_numbers_but_for_the_seconds(
    framework: Framework, budget: Budget, outcome: Outcome
) -> None:
    first, second = outcome.to_dict(), perform(framework, budget, quiet).to_dict()
    for limits in (first["limits"], second["limits"]):
        assert all(seconds > 0 for seconds in limits.pop("median_step_seconds").values())  # type: ignore[attr-defined]
    for ways in (first["ways"], second["ways"]):
        assert [way.pop("median_step_seconds") > 0 for way in ways] == [True, True, True]  # type: ignore[attr-defined]
    assert first == second


def test_the_runs_differ(outcome: Outcome) -> None:
    assert all(len(set(score.curve[0].values)) == 2 for score in outcome.scores)


def test_every_step_has_its_time(run: Run, budget: Budget) -> None:
    assert [len(trace.seconds) for trace in run.traces.values()] == [budget.steps] * 3


def test_every_bit_of_work_ticks(framework: Framework, budget: Budget) -> None:
    ticks: Counter[str] = Counter()
    perform(framework, budget, lambda stage: ticks.update([stage]))
    assert ticks == {
        "learn 0 to 4": 2,
        "learn 5 to 9, three ways": 12,
        "freeze by hand": 6,
        "learn 5 to 9 from the cache": 6,
    }


def test_no_scan_is_both_learnt_and_judged() -> None:
    dealt = lesson(np.random.default_rng(3), labelled=10)
    for learnt, unseen in ((dealt.old, dealt.old_unseen), (dealt.new, dealt.new_unseen)):
        # All scans of the set differ, so that the pixels are the scan.
        seen = {image.tobytes() for image in learnt.images}
        assert not seen & {image.tobytes() for image in unseen.images}
    assert Counter(dealt.new.labels.tolist()) == dict.fromkeys(range(5), 10)


@pytest.mark.usefixtures("alone")
def test_a_trunk_that_moves_stops_the_demo(
    framework: Framework, budget: Budget, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the contest with a freezing that is not one."""
    learner = learner_of(framework)
    monkeypatch.setattr(learner, "freeze", learner.freeze_by_hand)
    with pytest.raises(MovedError) as caught:
        play(framework, budget, 0, quiet)
    assert {movement.path for movement in caught.value.moved} == facts.moved


def test_freezing_by_hand_is_caught(outcome: Outcome, facts: Facts) -> None:
    assert set(outcome.by_hand.moved) == facts.moved
    assert outcome.by_hand.message.startswith(facts.alarm)
    assert outcome.by_hand.changed == 200


def test_freezing_by_hand_is_not_caught_when_nothing_moves(
    framework: Framework, budget: Budget, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the negative control: the same code on a trunk that is held."""
    learner = learner_of(framework)
    monkeypatch.setattr(learner, "freeze_by_hand", learner.freeze)
    found = by_hand.freeze_by_hand(run, budget, quiet)
    assert (found.message, found.moved, found.changed, found.after) == ("", (), 0, run.before)
