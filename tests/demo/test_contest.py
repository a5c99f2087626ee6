"""The three ways, what they cost, the proof, and the trunk that was frozen by hand."""

from collections import Counter

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError
from frostline.demo import by_hand, contest, perform
from frostline.demo.budget import Budget
from frostline.demo.contest import Run, play
from frostline.demo.learner import Learner
from frostline.demo.network import Network
from frostline.demo.outcome import Outcome
from frostline.demo.scans import Scans, lesson

PARAMETERS = {f"trunk.{layer}.weight" for layer in (0, 1, 3, 4, 7, 8)} | {f"trunk.{layer}.bias" for layer in (1, 4, 8)}
BUFFERS = {
    f"trunk.{layer}.{name}" for layer in (1, 4, 8) for name in ("running_mean", "running_var", "num_batches_tracked")
}


def quiet(stage: contest.Stage) -> None:
    pass


@pytest.fixture
def run(budget: Budget) -> Run:
    return play(budget, 0, quiet)


def test_what_is_frozen_is_the_whole_trunk(outcome: Outcome) -> None:
    assert set(outcome.watched) == PARAMETERS | BUFFERS


def test_a_frozen_trunk_forgets_nothing(run: Run) -> None:
    assert run.traces["frozen trunk"].kept == run.before > 0.5


def test_what_each_way_costs(outcome: Outcome) -> None:
    frozen, full, scratch = outcome.scores
    # AdamW keeps two moments of 4 bytes a value, and a count of 4 bytes a tensor: 2 in the head, 11 in all.
    assert (frozen.trainable_params, frozen.optimizer_bytes) == (645, 2 * 4 * 645 + 4 * 2)
    assert (full.trainable_params, full.optimizer_bytes) == (14_773, 2 * 4 * 14_773 + 4 * 11)
    assert (scratch.trainable_params, scratch.optimizer_bytes) == (full.trainable_params, full.optimizer_bytes)
    # Of a scan: pixels, what three convolutions, their activations and two poolings give, where the largest were,
    # 5 logarithms, a label; of all: means and deviations of batch norm, and one sum of the weights of the classes.
    of_a_scan = 4 * (64 + 2 * 1024 + 2 * 2048 + 512 + 2 * 512 + 128) + 8 * (512 + 128) + 4 * 5 + 8
    assert scratch.saved_bytes == full.saved_bytes == 8 * of_a_scan + 2 * 4 * (16 + 32 + 32) + 4
    # Of 8 scans: 128 features, 5 logarithms, a label each; and one sum of the weights of the classes.
    assert frozen.saved_bytes == 8 * (128 * 4 + 5 * 4 + 8) + 4


def test_saved_bytes_leave_the_network_as_it_was() -> None:
    learner = Learner(Network(), lr=0.1)
    before = {path: kept.clone() for path, kept in learner.network.state_dict().items()}
    learner.saved_bytes(Scans(torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)))
    assert all(torch.equal(kept, before[path]) for path, kept in learner.network.state_dict().items())


def test_the_same_seed_gives_the_same_numbers_but_for_the_seconds(budget: Budget, outcome: Outcome) -> None:
    first, second = outcome.to_dict(), perform(budget, quiet).to_dict()
    for ways in (first["ways"], second["ways"]):
        assert [way.pop("median_step_seconds") > 0 for way in ways] == [True, True, True]  # type: ignore[attr-defined]
    assert first == second


def test_the_runs_differ(outcome: Outcome) -> None:
    assert all(len(set(score.curve[0].values)) == 2 for score in outcome.scores)


def test_the_caller_keeps_its_random_numbers_and_threads(budget: Budget) -> None:
    torch.set_num_threads(2)
    state = torch.random.get_rng_state()
    perform(budget, quiet)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == 2


def test_every_bit_of_work_ticks(budget: Budget) -> None:
    ticks: Counter[str] = Counter()
    perform(budget, lambda stage: ticks.update([stage]))
    assert ticks == {"learn 0 to 4": 2, "learn 5 to 9, three ways": 12, "freeze by hand": 6}


def test_no_scan_is_both_learnt_and_judged() -> None:
    dealt = lesson(torch.Generator().manual_seed(3), labelled=10)
    for learnt, unseen in ((dealt.old, dealt.old_unseen), (dealt.new, dealt.new_unseen)):
        # All scans of the set differ, so that the pixels are the scan.
        seen = {image.numpy().tobytes() for image in learnt.images}
        assert not seen & {image.numpy().tobytes() for image in unseen.images}
    assert Counter(dealt.new.labels.tolist()) == dict.fromkeys(range(5), 10)


def test_a_trunk_that_moves_stops_the_demo(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the contest with a freezing that is not one."""

    def by_flag_alone(network: Network, path: str) -> None:
        network.get_submodule(path).requires_grad_(False)

    monkeypatch.setattr(contest.ft, "freeze", by_flag_alone)
    with pytest.raises(MovedError) as caught:
        play(budget, 0, quiet)
    assert {movement.path for movement in caught.value.moved} == BUFFERS


def test_freezing_by_hand_is_caught(outcome: Outcome) -> None:
    assert set(outcome.by_hand.moved) == BUFFERS
    assert outcome.by_hand.message.startswith("9 of 18 frozen tensors moved.\n'trunk.1.running_mean' (buffer) moved.")
    assert outcome.by_hand.changed == 200


def test_freezing_by_hand_is_not_caught_when_nothing_moves(
    budget: Budget, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of the negative control: the same code on a trunk that is held."""

    def held(old: Network, head: nn.Linear) -> Network:
        network = contest.onto(old, head)
        ft.freeze(network, "trunk")
        return network

    monkeypatch.setattr(by_hand, "onto", held)
    found = by_hand.freeze_by_hand(run, budget, quiet)
    assert (found.message, found.moved, found.changed, found.after) == ("", (), 0, run.before)
