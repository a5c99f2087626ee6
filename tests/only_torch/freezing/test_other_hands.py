"""Verbs read the model anew: what others change in it between two calls is seen at the next one."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import frostline.torch as ft


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def flags(model: nn.Sequential) -> None:
    model[0].weight.requires_grad_(True)


def replaced_module(model: nn.Sequential) -> None:
    model[0] = nn.Linear(2, 3, bias=False)


def replaced_parameter(model: nn.Sequential) -> None:
    model[0].weight = nn.Parameter(torch.ones(3, 2))


def pruned(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[0], "weight", 0.5)


def added(model: nn.Sequential) -> None:
    model.append(nn.Linear(2, 1, bias=False))


CHANGES: list[tuple[Callable[[nn.Sequential], None], set[str]]] = [
    (flags, {"0.weight"}),
    (replaced_module, {"0.weight"}),
    (replaced_parameter, {"0.weight"}),
    (pruned, set()),
    (added, {"3.weight"}),
]


@pytest.mark.parametrize(("change", "trains"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_change_by_others_is_seen_at_the_next_call(change: Callable[[nn.Sequential], None], trains: set[str]) -> None:
    model = net()
    ft.freeze(model)
    before = ft.plan(model)
    assert before.trainable == frozenset()
    change(model)
    plan = ft.plan(model)
    assert plan.trainable == trains
    assert set(ft.trainable(model)) == trains
    assert plan.paths == {name for name, _ in model.named_parameters()}
    ft.freeze(model)
    assert ft.plan(model).trainable == frozenset()
    assert not model[0].training


def test_following_the_same_plan_again_takes_back_what_others_did() -> None:
    model = net()
    ft.freeze(model, "0")
    plan = ft.plan(model)
    ft.follow(model, plan)
    model[0].weight.requires_grad_(True)
    model[0].weight.grad = torch.ones(3, 2)
    model[2].bias.requires_grad_(False)
    change = ft.follow(model, plan)
    assert (change.freeze, change.thaw) == ({"0.weight"}, {"2.bias"})
    assert model[0].weight.grad is None
    assert set(ft.trainable(model)) == {"1.weight", "1.bias", "2.weight", "2.bias"}


def test_a_copy_is_followed_on_its_own() -> None:
    model = net()
    ft.follow(model, ft.plan(model).freeze(["0.weight", "0.bias"]))
    twin = copy.deepcopy(model)
    ft.follow(twin, ft.plan(twin).thaw(["0.weight", "0.bias"]))
    assert set(ft.frozen(model)) == {"0.weight", "0.bias"}
    assert set(ft.frozen(twin)) == set()
