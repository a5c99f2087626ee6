"""F22: every optimizer, in every routine, with every gradient that a step before may have left behind."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn, optim

import frostline.torch as ft
from only_torch.bits import contents, moved
from only_torch.field.evidence import below, train
from only_torch.field.routines import ROUTINES, WAYS, loss, make, net, run, warm

each_way = pytest.mark.parametrize(("kind", "way"), WAYS, ids=[f"{kind} {way}" for kind, way in WAYS])


@pytest.mark.parametrize("routine", ROUTINES)
@pytest.mark.parametrize("gradient", ["none", "zero", "stale"])
@each_way
def test_f22_frozen_in_place_under_a_blind_routine(kind: str, way: str, gradient: str, routine: str) -> None:
    """DetNAS#3: frozen mid-training, with momentum and all parameters in the optimizer, weights moved on."""
    model, optimizer = warm(kind, way, gradient)
    ft.freeze(model, "trunk")
    before = contents(model)
    run(routine, kind, model, optimizer)
    assert moved(before, model) == set(before) - below(model, "trunk")


@pytest.mark.parametrize("routine", ROUTINES)
@each_way
def test_f22_frozen_per_use_under_a_blind_routine(kind: str, way: str, routine: str) -> None:
    """DetNAS#3, per use: the layer was trained by another model before, and has that one's gradients."""
    other, _ = warm(kind, way, "stale")
    layer = other.trunk
    model = net()
    model.trunk = ft.Frozen(layer)
    optimizer = make(kind, way)(list(model.parameters()))
    before, layer_before = contents(model), contents(layer)
    run(routine, kind, model, optimizer)
    assert moved(before, model) == set(before) - below(model, "trunk")
    assert moved(layer_before, layer) == set()


@pytest.mark.parametrize("gradient", ["zero", "stale"])
@each_way
def test_f22_by_hand_it_moves(kind: str, way: str, gradient: str) -> None:
    """DetNAS#3: requires_grad=False and eval() by hand; optimizers read .grad and never the flag."""
    model, optimizer = warm(kind, way, gradient)
    model.trunk.requires_grad_(False).eval()
    before = contents(model.trunk)

    def closure() -> torch.Tensor:
        value = loss(model)
        value.backward()
        return value

    # Without the hooks of step, one of which keeps LBFGS to what is trainable once anything was frozen.
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer, closure)
    assert moved(before, model.trunk) >= {"0.weight", "1.weight", "3.weight"}


def _lbfgs_step(model: nn.Module, optimizer: optim.Optimizer) -> None:
    x = torch.ones(3, 4, requires_grad=True)

    def closure() -> torch.Tensor:
        value = (model(x) - 1).square().sum()
        value.backward()
        return value

    optimizer.step(closure)


def test_f22_lbfgs_moves_nothing_where_everything_is_frozen() -> None:
    """DetNAS#3, with LBFGS, whose history points into all it once trained, and only an input to learn."""
    model, optimizer = warm("lbfgs", "plain", "zero")
    ft.freeze(model)
    before = contents(model)
    _lbfgs_step(model, optimizer)
    assert moved(before, model) == set()


def test_f22_lbfgs_moves_a_thawed_part_again() -> None:
    """DetNAS#3, with LBFGS: parameters that its steps left out come back with the thaw."""
    model, optimizer = warm("lbfgs", "plain", "zero")
    handle = ft.freeze(model, "trunk")
    _lbfgs_step(model, optimizer)
    handle.undo()
    before = contents(model)
    _lbfgs_step(model.eval(), optimizer)
    assert moved(before, model) == {name for name, _ in model.named_parameters()}


def test_f22_the_first_step_from_nothing_moves_nothing_frozen() -> None:
    """curated-transformers PR#69: frozen before the first step, with decay, there is no .grad at all."""
    model = net()
    ft.freeze(model, "trunk")
    before = contents(model)
    train(model, torch.ones(3, 4))
    assert moved(before, model) >= below(model, "head.0")
    assert moved(before, model) & below(model, "trunk") == set()
