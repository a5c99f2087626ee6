"""F51 to F57: something else sets the flag, or forgets it."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError, Plan
from only_torch.bits import contents, moved
from only_torch.field.evidence import state, train

HEAD = {"head.weight", "head.bias"}


def _net() -> nn.Module:
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    model.add_module("head", nn.Linear(4, 2))
    return model


def _x() -> torch.Tensor:
    return torch.randn(6, 4) * 2


def test_f51_a_sweep_over_the_model_does_not_thaw_a_frozen_use() -> None:
    """yolov5#1213: trainers set requires_grad=True on everything before they start."""
    model = _net()
    model.trunk = ft.Frozen(model.trunk)
    model.requires_grad_(True)
    for parameter in model.parameters():
        parameter.requires_grad = True
    before = contents(model)
    train(model, _x())
    assert moved(before, model) == HEAD
    assert set(ft.trainable(model)) == HEAD


def test_f51_a_sweep_that_thaws_a_part_frozen_in_place_is_caught() -> None:
    """Lightning#712: toggle_optimizer sets everything to True; the guard says that it was thawed."""
    model = _net()
    ft.freeze(model, "trunk[0]")
    with pytest.raises(MovedError) as caught, ft.guard(model):
        train(model.requires_grad_(True), _x(), steps=1)
    assert {(m.path, m.cause) for m in caught.value.moved} == {
        (path, "it was thawed: requires_grad is True now, and an optimizer moved it")
        for path in ("trunk.0.weight", "trunk.0.bias")
    }


def test_f51_the_sweep_is_undone_by_following_the_plan() -> None:
    """deepxde PR#1193: after a sweep, following the earlier plan restores the frozen set."""
    model = _net()
    ft.freeze(model, "trunk")
    plan = ft.plan(model)
    model.requires_grad_(True)
    change = ft.follow(model, plan)
    assert (change.freeze, change.thaw) == (plan.frozen, frozenset())
    before = contents(model)
    train(model, _x())
    assert moved(before, model) == HEAD


def test_f51_undoing_restores_the_flags_of_the_user() -> None:
    """Lightning PR#5775: toggle and untoggle lose the user's own requires_grad=False."""
    model = _net()
    model.trunk[0].requires_grad_(False)
    own = state(model)
    handle = ft.freeze(model)
    assert state(model) != own
    handle.undo()
    assert state(model) == own
    assert not model.trunk[0].weight.requires_grad


def test_f51_the_discriminator_is_constant_for_the_generator() -> None:
    """HyperGAN PR#330: GANs toggle flags back and forth; a frozen use needs no toggling."""
    generator, discriminator = nn.Linear(4, 4), _net()
    for_generator = nn.Sequential(generator, ft.Frozen(discriminator))
    before = contents(discriminator)
    for_generator.train()(_x()).sum().backward()
    assert [p.grad for p in discriminator.parameters()] == [None] * 6
    assert generator.weight.grad.count_nonzero() == 16
    assert moved(before, discriminator) == set()
    discriminator(generator(_x()).detach()).square().sum().backward()
    assert all(p.grad is not None for p in discriminator.parameters())


def test_f52_freezing_twice_and_undoing_both() -> None:
    """NeMo: freeze(); freeze(); unfreeze(partial=True) leaves everything frozen."""
    model = _net()
    start = state(model)
    first, second = ft.freeze(model), ft.freeze(model)
    second.undo()
    assert set(ft.trainable(model)) == set()
    first.undo()
    assert state(model) == start


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0)])
def test_f52_overlapping_owners_undo_in_any_order(order: tuple[int, ...]) -> None:
    """NeMo: snapshots do not nest; claims are taken back one by one, and the rest goes on."""
    model = _net()
    start = state(model)
    parts = ("trunk", "**.weight", "head")
    handles = [ft.freeze(model, part) for part in parts]
    left = set(range(3))
    for number in order:
        handles[number].undo()
        left.remove(number)
        expected = _net()
        for kept in sorted(left):
            ft.freeze(expected, parts[kept])
        assert ft.plan(model) == ft.plan(expected)
        assert [m.training for m in model.modules()] == [m.training for m in expected.modules()]
    assert state(model) == start


def test_f53_a_resized_embedding_is_trainable_again_and_followed_back() -> None:
    """transformers#26861: resize_token_embeddings made a frozen embedding trainable."""
    model = nn.Sequential()
    model.add_module("embed", nn.Embedding(5, 4))
    model.add_module("head", nn.Linear(4, 2))
    ft.freeze(model, "embed")
    plan = ft.plan(model)
    model.embed = nn.Embedding(7, 4)
    assert set(ft.trainable(model)) == {"embed.weight", *HEAD}
    assert ft.plan(model) != plan
    change = ft.follow(model, plan)
    assert change.freeze == {"embed.weight"}
    assert set(ft.trainable(model)) == HEAD


def test_f54_parameters_wrapped_anew_are_followed_back_and_caught() -> None:
    """torchtitan#3885: sharding wraps in nn.Parameter(t), whose flag is True, and the base was trained."""
    model = _net()
    ft.freeze(model, "trunk")
    plan = ft.plan(model)
    for module in model.trunk.modules():
        for name, parameter in list(module._parameters.items()):
            setattr(module, name, nn.Parameter(parameter.data))
    assert set(ft.trainable(model)) == plan.frozen | HEAD
    change = ft.follow(model, plan)
    assert change.freeze == plan.frozen
    before = contents(model)
    train(model, _x())
    assert moved(before, model) == HEAD


def test_f54_the_guard_names_the_replaced_storage() -> None:
    """torchtitan#3885: the guard looks by name, so a parameter that was wrapped anew is compared too."""
    model = _net()
    ft.freeze(model, "trunk")
    with ft.guard(model):
        model.trunk[0].weight = nn.Parameter(model.trunk[0].weight.data)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model.trunk[0].bias = nn.Parameter(model.trunk[0].bias.data + 1)
    assert [m.path for m in caught.value.moved] == ["trunk.0.bias"]


def test_f55_an_adapter_that_comes_and_goes_leaves_the_flags_alone() -> None:
    """peft#2759: loading or activating an adapter flips the flags of the base model."""
    model = _net()
    base = ft.freeze(model, "trunk")
    plan = ft.plan(model)
    with ft.thaw(model, "trunk[0]"):
        assert set(ft.trainable(model)) == {"trunk.0.weight", "trunk.0.bias", *HEAD}
    assert ft.plan(model) == plan
    with ft.freeze(model, "head"):
        assert set(ft.trainable(model)) == set()
    assert ft.plan(model) == plan
    base.undo()
    assert len(ft.trainable(model)) == 6


def test_f56_a_plan_survives_where_a_state_dict_forgets() -> None:
    """transformers#11294: requires_grad is in no state dict; after the resume everything was trainable."""
    model = _net()
    ft.freeze(model, "trunk")
    saved, plan = io.BytesIO(), ft.plan(model).to_json()
    torch.save(model.state_dict(), saved)

    resumed = _net()
    resumed.load_state_dict(torch.load(io.BytesIO(saved.getvalue())))
    assert len(ft.trainable(resumed)) == 6
    ft.follow(resumed, Plan.from_json(plan))
    before = contents(resumed)
    train(resumed, _x())
    assert moved(before, resumed) == HEAD


@pytest.mark.parametrize("assign", [False, True])
def test_f56_loading_into_a_frozen_model_leaves_it_frozen(assign: bool) -> None:
    """pytorch PR#121157: load_state_dict(assign=True) brings new parameters, and the flags must stay."""
    model, other = _net(), _net()
    handle = ft.freeze(model, "trunk")
    model.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
    assert set(ft.trainable(model)) == HEAD
    before = contents(model)
    train(model, _x())
    assert moved(before, model) == HEAD
    handle.undo()
    assert len(ft.trainable(model)) == 6


def test_f56_a_pickled_model_is_frozen_as_before() -> None:
    """transformers#11294: where the whole model is saved, flags and holds come back with it."""
    model = _net()
    ft.freeze(model, "trunk")
    saved = io.BytesIO()
    torch.save(model, saved)
    resumed = torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
    assert ft.plan(resumed) == ft.plan(model)
    before = contents(resumed)
    train(resumed, _x())
    assert moved(before, resumed) == HEAD
    ft.thaw(resumed)
    assert resumed.train().trunk[1].training
    assert not model.trunk[1].training


@pytest.mark.parametrize("frozen", ["in place", "per use"])
def test_f57_frozen_weights_are_in_the_checkpoint(frozen: str) -> None:
    """DeepSpeed#3090: the checkpoint lost the frozen weights, and they were random after the resume."""
    model, plain = _net(), _net()
    names = list(plain.state_dict())
    if frozen == "in place":
        ft.freeze(model, "trunk")
    else:
        model.trunk = ft.Frozen(model.trunk)
    assert list(model.state_dict()) == names
    assert {n for n, _ in model.named_parameters() if n not in ft.trainable(model)} == set(ft.frozen(model))
    plain.load_state_dict(model.state_dict())
    assert contents(plain) == contents(model)
    trained_only = {n: p for n, p in model.state_dict().items() if n in ft.trainable(model)}
    with pytest.raises(RuntimeError, match="Missing key"):
        _net().load_state_dict(trained_only)
