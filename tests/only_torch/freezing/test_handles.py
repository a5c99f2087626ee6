"""Nested and overlapping freezes undo independently and in any order (L9, L10)."""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import frostline.torch as ft
from frostline.errors import ConstantError
from only_torch.bits import training

PATHS = ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Linear(2, 2))


def thawed(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def check_untouched(model: nn.Module) -> None:
    """No flag, no mode, and no trace of a freeze in any module."""
    assert thawed(model) == set(PATHS)
    assert training(model) == {"", "0", "1", "2", "3"}
    fresh = net()
    assert [vars(m).keys() for m in model.modules()] == [vars(m).keys() for m in fresh.modules()]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_overlapping_handles_undone_in_every_order(order: tuple[int, ...]) -> None:
    model = net()
    handles = [ft.freeze(model, "[:2]"), ft.thaw(model, "1"), ft.freeze(model, "**.weight"), ft.freeze(model)]
    for number in order:
        handles[number].undo()
        handles[number].undo()
    check_untouched(model)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_claims_of_others_hold_after_each_undo(order: tuple[int, ...]) -> None:
    """Expected by hand: 0 freezes 0 and 1, then 1 thaws 1, then 2 freezes all weights."""
    model = net()
    handles = [ft.freeze(model, "[:2]"), ft.thaw(model, "1"), ft.freeze(model, "**.weight")]
    free = {
        frozenset({0, 1, 2}): {"1.bias", "3.bias"},
        frozenset({0, 1}): {"1.weight", "1.bias", "3.weight", "3.bias"},
        frozenset({0, 2}): {"3.bias"},
        frozenset({1, 2}): {"0.bias", "1.bias", "3.bias"},
        frozenset({0}): {"3.weight", "3.bias"},
        frozenset({1}): set(PATHS),
        frozenset({2}): {"0.bias", "1.bias", "3.bias"},
        frozenset(): set(PATHS),
    }
    live = {0, 1, 2}
    assert thawed(model) == free[frozenset(live)]
    for number in order:
        handles[number].undo()
        live.remove(number)
        assert thawed(model) == free[frozenset(live)]


def test_nested_blocks() -> None:
    model = net()
    with ft.freeze(model, "0"):
        with ft.freeze(model, "[:2]"):
            with ft.thaw(model, "0.bias"):
                assert thawed(model) == {"0.bias", "3.weight", "3.bias"}
            assert thawed(model) == {"3.weight", "3.bias"}
        assert thawed(model) == {"1.weight", "1.bias", "3.weight", "3.bias"}
    check_untouched(model)


def test_exception_inside_a_block_restores_everything() -> None:
    model = net()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), ft.freeze(model):
        model.train()(nn.Linear(3, 3).weight)
    check_untouched(model)


def test_block_gives_the_handle_and_its_plan() -> None:
    with ft.freeze(net(), "0") as handle:
        assert handle.plan.frozen == {"0.weight", "0.bias"}
        assert repr(handle) == "Handle(Plan(frozen=2, trainable=4))"


def test_flag_that_was_off_before_stays_off_after() -> None:
    model = net()
    model[0].bias.requires_grad_(False)
    handle = ft.freeze(model, "0")
    handle.undo()
    assert thawed(model) == set(PATHS) - {"0.bias"}
    thaw = ft.thaw(model, "0", constants=True)
    assert thawed(model) == set(PATHS)
    thaw.undo()
    assert thawed(model) == set(PATHS) - {"0.bias"}


def test_the_same_freeze_twice_needs_two_undos() -> None:
    model = net()
    one, other = ft.freeze(model, "0"), ft.freeze(model, "0")
    one.undo()
    assert thawed(model) == set(PATHS) - {"0.weight", "0.bias"}
    other.undo()
    check_untouched(model)


def test_handles_made_on_a_part_and_on_the_whole() -> None:
    model = net()
    part, whole = ft.freeze(model[1]), ft.freeze(model)
    whole.undo()
    assert thawed(model) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert training(model) == {"", "0", "2", "3"}
    part.undo()
    check_untouched(model)


def test_whole_undone_after_the_part_that_was_frozen_first() -> None:
    model = net()
    part, whole = ft.freeze(model[1]), ft.freeze(model)
    part.undo()
    assert thawed(model) == set()
    assert training(model) == set()
    whole.undo()
    check_untouched(model)


def test_undoing_through_a_part_releases_the_modules_around_it() -> None:
    """The dropout goes with its container; when a part is thawed the container is not frozen whole any more."""
    model = net()
    ft.freeze(model)
    ft.thaw(model[3])
    model.train()
    assert training(model[3]) == {""}
    assert thawed(model) == {"3.weight", "3.bias"}


def test_undo_of_a_model_whose_parameters_were_replaced() -> None:
    """Claims are kept by name: loading by assignment makes new parameters."""
    model = net()
    handle = ft.freeze(model, "0")
    model.load_state_dict({name: t.clone() for name, t in model.state_dict().items()}, assign=True)
    assert thawed(model) == set(PATHS) - {"0.weight", "0.bias"}
    handle.undo()
    check_untouched(model)


SELECTED = {
    "0": {"0.weight", "0.bias"},
    "[:2]": {"0.weight", "0.bias", "1.weight", "1.bias"},
    "**.weight": {"0.weight", "1.weight", "3.weight"},
    "{0,3}.bias": {"0.bias", "3.bias"},
    "1": {"1.weight", "1.bias"},
    "**": set(PATHS),
}
BELOW = {"": set(PATHS), "0": SELECTED["0"], "1": SELECTED["1"], "3": {"3.weight", "3.bias"}}


@dataclass
class Account:
    """The rule of claims without a model: the latest live claim holds, and without one the earlier flag.

    What was frozen before stays so when it is thawed.
    """

    before: set[str]
    claims: list[tuple[bool, str]] = field(default_factory=list)
    live: list[bool] = field(default_factory=list)

    def verdict(self, path: str) -> bool | None:
        verdicts = [
            freezes
            for (freezes, selector), live in zip(self.claims, self.live, strict=True)
            if live and path in SELECTED[selector]
        ]
        return verdicts[-1] if verdicts else None

    def frozen(self) -> set[str]:
        return {path for path in PATHS if path in self.before or self.verdict(path)}

    def held(self) -> set[str]:
        frozen = self.frozen()
        whole = {m for m, paths in BELOW.items() if paths <= frozen and any(self.verdict(p) for p in paths)}
        return {"", "0", "1", "2", "3"} if "" in whole else whole  # what is inside goes along


steps = st.one_of(
    st.tuples(st.sampled_from(["freeze", "thaw"]), st.sampled_from(sorted(SELECTED))),
    st.tuples(st.just("undo"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["train", "eval"]), st.none()),
)


@settings(max_examples=150, deadline=None)
@given(st.sets(st.sampled_from(PATHS), max_size=3), st.lists(steps, max_size=12))
def test_any_sequence_of_freezing_thawing_and_undoing(before: set[str], sequence: list[tuple[str, object]]) -> None:
    model, account, handles, wanted = net(), Account(before), [], True
    for name, p in model.named_parameters():
        p.requires_grad_(name not in before)
    for verb, argument in sequence:
        if verb == "thaw" and SELECTED[argument] <= before:
            with pytest.raises(ConstantError):
                ft.thaw(model, argument)
        elif verb in ("freeze", "thaw"):
            handles.append(getattr(ft, verb)(model, argument))
            account.claims.append((verb == "freeze", argument))
            account.live.append(True)
        elif verb == "undo" and handles:
            handles[argument % len(handles)].undo()
            account.live[argument % len(handles)] = False
        elif verb in ("train", "eval"):
            wanted = verb == "train"
            model.train(wanted)
        assert thawed(model) == set(PATHS) - account.frozen()
        assert training(model) == ({"", "0", "1", "2", "3"} - account.held() if wanted else set())
    for handle in handles:
        handle.undo()
    assert thawed(model) == set(PATHS) - before
    assert training(model) == ({"", "0", "1", "2", "3"} if wanted else set())
