"""The group of what thaws is never guessed, and `rates` says at which rate each parameter moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import Rule
from frostline.errors import BindError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))


def with_head_and_body() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """Two rates; the body was frozen when the optimizer was made."""
    model = net()
    ft.freeze(model, "[:2]")
    body = [p for p in model[:2].parameters() if p.requires_grad]
    return model, torch.optim.AdamW([{"params": model[2].parameters(), "lr": 0.1}, {"params": body, "lr": 0.001}])


def with_decay() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """Groups with and without weight decay, as trainers make them."""
    model = net()
    ft.freeze(model, "[:2]")
    return model, torch.optim.AdamW(
        [{"params": [model[2].weight], "weight_decay": 0.1}, {"params": [model[2].bias], "weight_decay": 0.0}]
    )


def decayed(model: nn.Module) -> Iterable[dict[str, Any]]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for name, p in named if name.endswith("weight")], "weight_decay": 0.1},
        {"params": [(name, p) for name, p in named if name.endswith("bias")], "weight_decay": 0.0},
    ]


def decayed_by_layer(model: nn.Module) -> Iterable[dict[str, Any]]:
    """As timm's `param_groups_layer_decay`: it looks at trainable parameters only."""
    for name, p in model.named_parameters():
        if p.requires_grad:
            yield {
                "params": [p],
                "weight_decay": 0.1 if p.dim() > 1 else 0.0,
                "lr_scale": 0.5 ** (2 - int(name[0])),
                "no_option_of_adamw": name,
            }


def inside(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[list[str]]:
    names = {id(p): path for path, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def test_rules_name_the_group_that_there_is() -> None:
    model, optimizer = with_head_and_body()
    ft.bind(optimizer, model, rules=[Rule("[:2]", lr=0.001)])
    ft.thaw(model, "[:2]")
    assert inside(optimizer, model) == [["2.weight", "2.bias"], ["0.weight", "0.bias", "1.weight", "1.bias"]]


def test_rules_ask_for_a_group_of_their_own() -> None:
    model, optimizer = with_head_and_body()
    ft.bind(optimizer, model, rules=[Rule("[0]", lr=0.01), Rule("[1]", lr=0.1)])
    ft.thaw(model, "[:2]")
    assert inside(optimizer, model) == [["1.weight", "1.bias", "2.weight", "2.bias"], [], ["0.weight", "0.bias"]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.001, 0.01]


def test_a_factor_of_a_rate_that_all_groups_share() -> None:
    model, optimizer = with_decay()
    rules = [Rule("[:2]", lr_scale=0.5), Rule("**.weight", weight_decay=0.1), Rule("**.bias", weight_decay=0.0)]
    ft.bind(optimizer, model, rules=rules)
    ft.thaw(model, "[0]")
    found = {
        name: (group["lr"], group["weight_decay"])
        for group, names in zip(optimizer.param_groups, inside(optimizer, model), strict=True)
        for name in names
    }
    assert found == {
        "0.weight": (0.0005, 0.1),
        "0.bias": (0.0005, 0.0),
        "2.weight": (0.001, 0.1),
        "2.bias": (0.001, 0.0),
    }


def test_a_function_that_trainers_have() -> None:
    model, optimizer = with_decay()
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    ft.bind(optimizer, model, groups=decayed)
    ft.thaw(model, "[1]")
    assert inside(optimizer, model) == [["1.weight", "2.weight"], ["1.bias", "2.bias"]]
    assert sorted(ft.frozen(model)) == ["0.bias", "0.weight"]


def test_a_function_with_the_layer_decay_of_timm() -> None:
    model = net()
    ft.freeze(model, "[:2]")
    optimizer = torch.optim.AdamW(decayed_by_layer(model))
    ft.bind(optimizer, model, groups=decayed_by_layer)
    ft.thaw(model, "[1]")
    found = {
        name: (group["lr_scale"], group["weight_decay"])
        for group, names in zip(optimizer.param_groups, inside(optimizer, model), strict=True)
        for name in names
    }
    assert found == {"1.weight": (0.5, 0.1), "1.bias": (0.5, 0.0), "2.weight": (1.0, 0.1), "2.bias": (1.0, 0.0)}


def test_groups_that_are_alike_are_no_question() -> None:
    model = net()
    ft.freeze(model, "[:2]")
    optimizer = torch.optim.AdamW([{"params": [model[2].weight]}, {"params": [model[2].bias]}])
    ft.bind(optimizer, model)
    ft.thaw(model, "[1]")
    assert inside(optimizer, model) == [["1.weight", "1.bias", "2.weight"], ["2.bias"]]


def test_constants_need_no_group_as_long_as_they_are_constant() -> None:
    """The base of a model with adapters, which somebody else froze by hand."""
    model = net()
    model[:2].requires_grad_(False)
    optimizer = torch.optim.AdamW([{"params": [model[2].weight]}, {"params": [model[2].bias], "weight_decay": 0.0}])
    binding = ft.bind(optimizer, model)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = binding.state_dict()
    binding.load_state_dict(state)
    ft.thaw(model, "[0]", constants=True)
    with pytest.raises(BindError) as caught:
        optimizer.step()
    assert str(caught.value).split("\n") == [
        "optimizer.step() finds 2 of 6 parameters that train and have no group: the optimizer never had them, and its "
        "2 groups differ in weight_decay.",
        "  0.weight",
        "  0.bias",
        "Say what they get: bind(..., rules=[Rule('0.weight', weight_decay=0.01)]), or groups=function.",
    ]


NAMED = ["  0.weight", "  0.bias", "  1.weight", "  1.bias"]
FIX = (
    "Say what they get when they thaw: bind(..., rules=[Rule('0.weight', {})]), or groups=function, or leave them out "
    'by selectors: bind(optimizer, model, "head").'
)
HEAD = "bind(optimizer, model) finds {} of 6 parameters in none of the 2 groups of the optimizer, which differ in {}:"
REFUSED: list[tuple[Callable[[], tuple[nn.Sequential, torch.optim.Optimizer]], dict[str, Any], list[str]]] = [
    (with_head_and_body, {}, [HEAD.format(4, "lr"), *NAMED, FIX.format("lr=0.1")]),
    (with_decay, {}, [HEAD.format(4, "weight_decay"), *NAMED, FIX.format("weight_decay=0.1")]),
    (
        with_head_and_body,
        {"rules": [Rule("[1]", lr=0.1), Rule("[0]", weight_decay=0.0)]},
        [HEAD.format(2, "lr"), *NAMED[:2], FIX.format("lr=0.1")],
    ),
    (
        with_decay,
        {"groups": lambda model: [{"params": model[1].parameters(), "weight_decay": 0.0}]},
        [HEAD.format(2, "weight_decay"), *NAMED[:2], FIX.format("weight_decay=0.1")],
    ),
]


@pytest.mark.parametrize(("made", "options", "lines"), REFUSED)
def test_the_whole_text_of_each_refusal(made: Any, options: dict[str, Any], lines: list[str]) -> None:
    model, optimizer = made()
    before = [dict(group) for group in optimizer.param_groups]
    with pytest.raises(BindError) as caught:
        ft.bind(optimizer, model, **options)
    assert str(caught.value).split("\n") == lines
    assert [dict(group) for group in optimizer.param_groups] == before
    assert sorted(ft.trainable(model)) == ["2.bias", "2.weight"]
    ft.bind(optimizer, model, "[2]")


def test_the_rate_of_each_parameter() -> None:
    model = net()
    optimizer = torch.optim.SGD(
        [{"params": model[:2].parameters(), "lr": 0.5}, {"params": model[2].parameters(), "lr": 2.0}]
    )
    binding = ft.bind(optimizer, model)
    ft.freeze(model, "[0]")
    binding.scale({"1.weight": 0.5, "2.bias": 0.0})
    assert binding.rates() == {
        "0.weight": 0.0,
        "0.bias": 0.0,
        "1.weight": 0.25,
        "1.bias": 0.5,
        "2.weight": 2.0,
        "2.bias": 0.0,
    }


def test_groups_whose_rates_a_warm_up_has_made_0_still_differ() -> None:
    model, optimizer = with_head_and_body()
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    with pytest.raises(BindError, match=r"none of the 2 groups of the optimizer, which differ in lr:"):
        ft.bind(optimizer, model)
    binding = ft.bind(optimizer, model, rules=[Rule("[:2]", lr=0.001)])
    ft.thaw(model, "[1]")
    assert [len(group["params"]) for group in binding.optimizer.param_groups] == [2, 2]
