"""Fourteen bugs of peers, none of which may be ours: each test has the peer's number and its mistake."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import FrostlineError, MovedError, NoMatchError, Plan, glob, where
from frostline.errors import PlanMismatchError
from frostline.torch._freezing.survey import survey
from only_torch.bits import contents, moved
from only_torch.field.evidence import state, train

HEAD = {"head.weight", "head.bias"}


def _net() -> nn.Module:
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()))
    model.add_module("head", nn.Linear(4, 2))
    return model


def _x() -> torch.Tensor:
    return torch.linspace(-1, 1, 24).reshape(6, 4).sin() * 3


def _layers(number: int) -> nn.Module:
    model = nn.Module()
    model.layer = nn.ModuleList(nn.Linear(1, 1) for _ in range(number))
    return model


def test_peer_01_equal_norms_are_two() -> None:
    """Lightning 2.6.6: "already in the optimizer" is asked by value, so the second LayerNorm is lost."""
    model = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4))
    ft.freeze(model)
    ft.thaw(model, "0")
    ft.thaw(model, "2")
    assert set(ft.trainable(model)) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    before = contents(model)
    optimizer = torch.optim.SGD(ft.trainable(model).values(), 0.1)
    model(_x()).pow(3).sum().backward()
    optimizer.step()
    assert moved(before, model) == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("selectors", [("trunk",), ("trunk[0]",), ("**", "!head"), ("head",), ()], ids=str)
def test_peer_02_freezing_never_adds_to_what_is_trainable(selectors: tuple[str, ...]) -> None:
    """Lightning 2.6.6: BaseFinetuning.freeze(train_bn=True) sets the norms' flags to True."""
    model = _net()
    model.trunk[1].requires_grad_(False)
    before = set(ft.trainable(model))
    ft.freeze(model, *selectors)
    assert set(ft.trainable(model)) < before
    assert not model.trunk[1].weight.requires_grad


def test_peer_03_weight_decay_moves_nothing_frozen() -> None:
    """optax chain(freeze, adamw), paramax: gradients of zero, and decay moves the weights all the same."""
    model = _net()
    optimizer = train(model, _x())
    by_hand = copy.deepcopy(model)
    own = torch.optim.AdamW(by_hand.parameters(), lr=0.05, weight_decay=0.1)
    for parameter in by_hand.trunk.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = contents(by_hand.trunk)
    own.step()
    assert moved(before, by_hand.trunk) == {"0.weight", "0.bias", "1.weight", "1.bias"} - _zero(before)

    ft.freeze(model, "trunk")
    before = contents(model)
    optimizer.step()
    assert moved(before, model) == HEAD


def _zero(before: dict[str, tuple[str, tuple[int, ...], bytes]]) -> set[str]:
    return {name for name, (_, _, data) in before.items() if not any(data)}


@pytest.mark.parametrize("set_to_none", [True, False])
def test_peer_04_a_stale_gradient_moves_nothing_frozen(set_to_none: bool) -> None:
    """torch: with zero_grad(set_to_none=False), a tensor frozen between two steps goes on moving."""
    model = _net()
    optimizer = train(model, _x())
    optimizer.zero_grad(set_to_none=set_to_none)
    ft.freeze(model, "trunk")
    before = contents(model)
    for _ in range(2):
        model(_x()).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
    assert moved(before, model) == HEAD


def test_peer_04_by_hand_it_goes_on_moving() -> None:
    """torch: the twin by hand, with set_to_none=False."""
    model = _net()
    optimizer = train(model, _x())
    optimizer.zero_grad(set_to_none=False)
    model.trunk.requires_grad_(False).eval()
    before = contents(model.trunk)
    model(_x()).sum().backward()
    optimizer.step()
    assert moved(before, model.trunk) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_peer_05_a_parameter_of_the_root_is_not_forgotten() -> None:
    """Composer, _get_layers: a walk over layers does not see a parameter registered on the model."""
    model = _net()
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    ft.freeze(model, "**", "!head")
    assert set(ft.trainable(model)) == HEAD
    ft.thaw(model, "scale")
    assert set(ft.trainable(model)) == HEAD | {"scale"}


def _fails() -> bool:
    raise RuntimeError("in the middle")


FAILURES: list[tuple[str, Callable[[nn.Module], object]]] = [
    ("freeze, second selector", lambda model: ft.freeze(model, "trunk", "typo")),
    (
        "freeze, predicate",
        lambda model: ft.freeze(model, "trunk", where(lambda p: p.path == "trunk.0.weight" or _fails())),
    ),
    ("freeze, count", lambda model: ft.freeze(model, "trunk", expect=3)),
    ("freeze, rows", lambda model: ft.freeze(model, "trunk", "head.weight[:1]")),
    ("freeze, mode", lambda model: ft.freeze(model, "trunk", mode="train")),
    ("thaw, second selector", lambda model: ft.thaw(model, "trunk", "typo")),
    ("follow, other paths", lambda model: ft.follow(model, Plan(frozenset({"trunk.0.weight"}), frozenset()))),
    ("frozen use, mode", lambda model: ft.Frozen(model.trunk, mode="train")),
]


@pytest.mark.parametrize(("name", "fail"), FAILURES, ids=[name for name, _ in FAILURES])
def test_peer_06_an_error_leaves_the_model_as_it_was(name: str, fail: Callable[[nn.Module], object]) -> None:
    """peft inject_adapter: the model is half changed when the error comes."""
    model = _net()
    train(model, _x())
    ft.freeze(model, "trunk[1]")
    before = state(model)
    with pytest.raises((FrostlineError, RuntimeError)):
        fail(model)
    assert state(model) == before


def test_peer_06_the_comparison_sees_a_half_change() -> None:
    """peft inject_adapter: the twin that changes something before it fails."""
    model = _net()
    train(model, _x())
    before = state(model)
    ft.freeze(model, "trunk[0].bias")
    assert {part for part in before if state(model)[part] != before[part]} == {"flags", "gradients", "attributes"}


def test_peer_07_the_typo_is_named_and_not_the_expression() -> None:
    """torchtune, nnx, timm: one of several names matches nothing, and nobody says so."""
    model = _net()
    with pytest.raises(NoMatchError) as caught:
        ft.freeze(model, glob("head") | (glob("trunk") - glob("trunk.9")))
    assert caught.value.selector == "glob('trunk.9')"


def test_peer_08_zero_is_a_number() -> None:
    """finetuning-scheduler: `x or default` eats 0; here expect=0, and the depth 0."""
    model = _net()
    with pytest.raises(FrostlineError):
        ft.freeze(model, "trunk", expect=0)
    assert ft.freeze(model, "trunk[:0]", allow_empty=True, expect=0).plan.frozen == set()
    assert set(ft.freeze(model, "trunk[0]").plan.frozen) == {"trunk.0.weight", "trunk.0.bias"}


@pytest.mark.parametrize("selector", ["layer.1", "layer[1]", "layer[1:2]", "**.1"])
def test_peer_09_layer_1_of_12(selector: str) -> None:
    """finetuning-scheduler: the fallback to a regex takes layer.10 and layer.11 for layer.1."""
    model = _layers(12)
    ft.freeze(model, selector, expect=2)
    assert set(ft.frozen(model)) == {"layer.1.weight", "layer.1.bias"}


def test_peer_10_nothing_that_is_handed_in_is_changed() -> None:
    """safetensors.flax: the caller's dict comes back changed."""
    model = _net()
    selectors: list[object] = ["trunk", "!trunk[1]", where(lambda p: p.size > 4)]
    kept, plan = list(selectors), ft.plan(model)
    text = plan.to_json()
    optimizers = [torch.optim.AdamW(model.parameters())]
    groups = [dict(group, params=list(group["params"])) for group in optimizers[0].param_groups]
    ft.freeze(model, *selectors)
    ft.check(model, optimizers)
    ft.report(model, optimizers[0])
    ft.follow(model, plan)
    assert selectors == kept
    assert plan.to_json() == text
    assert len(optimizers) == 1
    assert [{**g, "params": list(map(id, g["params"]))} for g in optimizers[0].param_groups] == [
        {**g, "params": list(map(id, g["params"]))} for g in groups
    ]

    weights = model.state_dict()
    names, data = list(weights), contents(model)
    used = nn.Sequential()
    used.add_module("trunk", ft.Frozen(model.trunk))
    used.add_module("head", model.head)
    used.load_state_dict(weights, assign=True)
    assert list(weights) == names
    assert contents(model) == data


def _overlapping() -> nn.Module:
    """One storage with three parameters on it: all of it, and two pieces."""
    model = nn.Module()
    whole = torch.arange(8.0)
    for name, piece in {"whole": whole, "first": whole[0:2], "middle": whole[5:6]}.items():
        model.register_parameter(name, nn.Parameter(piece))
    return model


@pytest.mark.parametrize("piece", ["first", "middle"])
def test_peer_11_the_guard_sees_a_frozen_tensor_move_through_a_piece_of_it(piece: str) -> None:
    """safetensors 0.8.0: of [whole, 1:2, 5:6] on one storage a nested overlap is missed."""
    model = _overlapping()
    ft.freeze(model, "**", f"!{piece}")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.get_parameter(piece).sum().backward()
    with pytest.raises(MovedError) as caught, ft.guard(model):
        optimizer.step()
    assert [movement.path for movement in caught.value.moved] == ["whole"]


def test_peer_11_pieces_that_do_not_overlap_are_told_apart() -> None:
    """safetensors 0.8.0: two pieces of one storage are not one tensor."""
    model = _overlapping()
    ft.freeze(model, "middle")
    optimizer = torch.optim.SGD([model.first], 0.1)
    with ft.guard(model) as watching:
        model.first.sum().backward()
        optimizer.step()
    assert watching.paths == {"middle"}


MESSAGES: list[tuple[str, Callable[[nn.Module], object]]] = [
    *FAILURES,
    ("freeze, kind", lambda model: ft.freeze(model, 3)),
    ("thaw of a use", lambda model: ft.thaw(nn.Sequential(ft.Frozen(model.head)))),
    ("check", lambda model: ft.check(ft.freeze(model) and model).raise_if_any()),
]


@pytest.mark.parametrize(("name", "fail"), MESSAGES, ids=[name for name, _ in MESSAGES])
def test_peer_12_no_text_is_broken_or_glued(name: str, fail: Callable[[nn.Module], object]) -> None:
    """flax 0.12.8, finetuning-scheduler, peft: an f forgotten before the quote, words without a space."""
    with pytest.raises((FrostlineError, RuntimeError)) as caught:
        fail(_net())
    lines = str(caught.value).split("\n")
    assert [line for line in lines if "{" in line or line != line.rstrip() or not line] == []
    assert [line for line in lines if "  " in line.lstrip() and "mode=" not in line] == []
    assert [line for line in lines if ".." in line.replace("...", "")] == []


@pytest.mark.parametrize("frozen", ["in place", "per use"])
def test_peer_13_stopping_and_going_on_changes_no_byte(frozen: str) -> None:
    """Composer#1002: a run with a frozen part cannot be resumed; here 2N steps are N, save, load, N."""

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = _net()
        if frozen == "in place":
            ft.freeze(model, "trunk")
        else:
            model.trunk = ft.Frozen(model.trunk)
        return model, torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model.train()(_x()).square().sum().backward()
            optimizer.step()

    model, optimizer = start()
    steps(model, optimizer)
    saved = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict(), ft.plan(model).to_json()), saved)
    at_the_break = contents(model)
    steps(model, optimizer)

    resumed, again = start()
    weights, moments, plan = torch.load(io.BytesIO(saved.getvalue()))
    resumed.load_state_dict(weights)
    again.load_state_dict(moments)
    ft.follow(resumed, Plan.from_json(plan))
    steps(resumed, again)
    assert contents(resumed) == contents(model)
    assert moved(at_the_break, model) == HEAD


def test_peer_14_paths_survive_a_pickle() -> None:
    """keras on torch: the name of a variable is the id of a tensor, which another process does not know."""
    model = _net()
    ft.freeze(model, "trunk")
    again = pickle.loads(pickle.dumps(model))
    assert survey(again).inventory == survey(model).inventory
    assert ft.plan(again) == ft.plan(model)
    assert pickle.loads(pickle.dumps(ft.plan(model))) == ft.plan(model)
    with pytest.raises(PlanMismatchError):
        ft.follow(nn.Sequential(nn.Linear(4, 4)), ft.plan(model))
