"""Plans of models: the frozen set as a value, read and followed."""

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import Plan
from frostline.errors import PinnedError, PlanMismatchError
from only_torch.bits import contents, moved, training
from only_torch.odd_layers import TiedPair


def net() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


BODY = {"0.weight", "0.bias", "1.weight", "1.bias"}
HEAD = {"2.weight", "2.bias"}
FROZEN_BODY = Plan(frozen=frozenset(BODY), trainable=frozenset(HEAD))
NOTHING = Plan(frozen=frozenset(), trainable=frozenset(BODY | HEAD))


def test_plan_of_a_model() -> None:
    model = net()
    assert ft.plan(model) == NOTHING
    ft.freeze(model, "[:2]")
    assert ft.plan(model) == FROZEN_BODY


def test_plan_includes_parameters_frozen_by_hand() -> None:
    model = net()
    model[:2].requires_grad_(False)
    assert ft.plan(model) == FROZEN_BODY


def test_trainable_and_frozen_are_all_there_is() -> None:
    model = net()
    ft.freeze(model, "[:2]")
    assert set(ft.trainable(model)) == HEAD
    assert set(ft.frozen(model)) == BODY
    both = {**ft.trainable(model), **ft.frozen(model)}
    assert {name: id(p) for name, p in both.items()} == {name: id(p) for name, p in model.named_parameters()}


def test_trainable_is_in_the_order_of_the_model() -> None:
    assert list(ft.trainable(net())) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]


def test_tied_parameter_is_one() -> None:
    assert list(ft.trainable(TiedPair())) == ["into.weight", "into.bias", "out.bias"]


def test_plan_goes_to_a_second_model_as_text() -> None:
    """The second model then freezes as the first does: nothing there moves, and its modes are held."""
    one, other = net(), net()
    ft.freeze(one, "[:2]")
    change = ft.follow(other, Plan.from_json(ft.plan(one).to_json()))
    assert (change.freeze, change.thaw) == (frozenset(BODY), frozenset())
    assert ft.plan(other) == FROZEN_BODY
    assert training(other.train()) == {"", "2"}
    before = contents(other)
    step = torch.optim.AdamW(other.parameters(), weight_decay=0.1)
    other(torch.randn(5, 4)).sum().backward()
    step.step()
    assert moved(before, other) == HEAD


def test_following_again_changes_nothing() -> None:
    model = net()
    ft.follow(model, FROZEN_BODY)
    assert not ft.follow(model, FROZEN_BODY)
    assert ft.plan(model) == FROZEN_BODY


def test_a_later_plan_takes_the_place_of_an_earlier_one() -> None:
    model = net()
    ft.follow(model, FROZEN_BODY)
    change = ft.follow(model, NOTHING)
    assert (change.freeze, change.thaw) == (frozenset(), frozenset(BODY))
    assert ft.plan(model) == NOTHING
    assert training(model.train()) == {"", "0", "1", "2"}


def test_many_plans_leave_one_claim() -> None:
    """A schedule follows a plan at each step: that must not grow the model."""
    model = net()
    for _ in range(50):
        ft.follow(model, FROZEN_BODY)
        ft.follow(model, NOTHING)
    claims = [vars(m)["_frostline"] for m in model.modules() if "_frostline" in vars(m)]
    assert [len(stack.claims) for ledger in claims for stack in ledger.values()] == [1] * 6


def test_a_plan_drops_stale_gradients() -> None:
    model = net()
    model(torch.randn(3, 4)).sum().backward()
    ft.follow(model, FROZEN_BODY)
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["2.weight", "2.bias"]


def test_a_plan_overrules_a_freeze_and_the_handle_undoes_its_own() -> None:
    """The latest claim holds."""
    model = net()
    handle = ft.freeze(model)
    ft.follow(model, FROZEN_BODY)
    assert ft.plan(model) == FROZEN_BODY
    handle.undo()
    assert ft.plan(model) == FROZEN_BODY


def test_a_block_inside_a_followed_plan_goes_back_to_the_plan() -> None:
    model = net()
    ft.follow(model, FROZEN_BODY)
    with ft.thaw(model):
        assert ft.plan(model) == NOTHING
    assert ft.plan(model) == FROZEN_BODY


def test_mode_of_a_freeze_is_kept_by_a_plan_that_agrees() -> None:
    model = net()
    ft.freeze(model, "[:2]", mode="follow")
    ft.follow(model, ft.plan(model))
    assert training(model.train()) == {"", "0", "1", "2"}
    before = contents(model)
    model(torch.randn(5, 4))
    assert moved(before, model) == set()


def pinned_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), ft.Frozen(nn.Linear(2, 2)))


def test_frozen_use_is_frozen_in_every_plan() -> None:
    model = pinned_model()
    assert ft.plan(model).frozen == {"1.weight", "1.bias"}
    model.requires_grad_(True)
    assert ft.plan(model).frozen == {"1.weight", "1.bias"}
    assert list(ft.trainable(model)) == ["0.weight", "0.bias"]


def test_plan_that_wants_to_train_a_frozen_use_is_refused_before_anything_is_changed() -> None:
    model = pinned_model()
    wanted = Plan(frozen=frozenset({"0.weight", "0.bias"}), trainable=frozenset({"1.weight", "1.bias"}))
    with pytest.raises(PinnedError):
        ft.follow(model, wanted)
    assert list(ft.trainable(model)) == ["0.weight", "0.bias"]


def test_plan_of_a_frozen_use_is_followed_by_one() -> None:
    model = pinned_model()
    change = ft.follow(model, ft.plan(model).freeze({"0.weight"}))
    assert change.freeze == {"0.weight"}
    assert list(ft.trainable(model)) == ["0.bias"]


def test_plan_of_another_model_is_refused_before_anything_is_changed() -> None:
    model = net()
    with pytest.raises(PlanMismatchError):
        ft.follow(model, ft.plan(nn.Linear(2, 2)).freeze({"weight"}))
    assert ft.plan(model) == NOTHING


def test_module_with_buffers_alone_is_in_the_plan() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 4))
    assert ft.plan(model).trainable == {"0", "1.weight", "1.bias"}
    ft.follow(model, ft.plan(model).freeze({"0"}))
    before = contents(model)
    model.train()(torch.randn(5, 4))
    assert moved(before, model) == set()


def test_plan_of_the_model_inside_a_wrapper() -> None:
    model = net()
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        assert ft.plan(wrapped) == NOTHING
