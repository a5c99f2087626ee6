"""Every kind of finding: what provokes it, its whole text, and a model without a finding."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import CheckError
from only_torch.field.evidence import state
from only_torch.inspection import checked
from only_torch.inspection.checked import CLEAN, FOUND, Optimizers, net


@pytest.mark.parametrize("make", CLEAN, ids=[make.__name__ for make in CLEAN])
def test_nothing_to_say(make: Callable[[nn.Module], Optimizers]) -> None:
    model = net()
    optimizer = make(model)
    assert str(ft.check(model, optimizer)) == "no findings"
    ft.check(model, optimizer).raise_if_any()
    assert ft.check(model) == []


each_finding = pytest.mark.parametrize(("provoke", "text"), FOUND, ids=[provoke.__name__ for provoke, _ in FOUND])


@each_finding
def test_whole_text(provoke: Callable[[nn.Module], Optimizers], text: list[str]) -> None:
    model = net()
    findings = ft.check(model, provoke(model))
    assert str(findings).split("\n") == text
    assert len(findings) == 1
    with pytest.raises(CheckError) as caught:
        findings.raise_if_any()
    assert caught.value.findings == tuple(findings)
    assert str(caught.value).split("\n") == ["1 finding.", *text]


@each_finding
def test_looking_changes_nothing(provoke: Callable[[nn.Module], Optimizers], text: list[str]) -> None:
    model = net()
    optimizer = provoke(model)
    kept = copy.deepcopy([o.state_dict() for o in optimizer] if isinstance(optimizer, list) else None)
    before = state(model)
    first = ft.check(model, optimizer)
    assert ft.check(model, optimizer) == first
    assert state(model) == before
    assert kept == ([o.state_dict() for o in optimizer] if isinstance(optimizer, list) else None)


@each_finding
def test_kinds_and_paths(provoke: Callable[[nn.Module], Optimizers], text: list[str]) -> None:
    """The first line, by which one filters, is made of the kind and the paths."""
    model = net()
    (finding,) = ft.check(model, provoke(model))
    kind, _, paths = text[0].partition(": ")
    assert finding.kind == kind
    assert list(finding.paths)[:4] == [path for path in paths.split(" and ")[0].split(", ") if path]


def test_each_fix_is_a_cure() -> None:
    """The fixes in the texts leave no finding."""
    model = net()
    checked.norm_frozen_by_hand(model)
    ft.freeze(model, "trunk.1")
    assert ft.check(model) == []

    model = net()
    checked.stale_gradient(model)
    ft.freeze(model, "trunk")
    assert ft.check(model) == []

    model = net()
    optimizer = checked.leftover(model)
    for parameter in ft.frozen(model).values():
        optimizer.state.pop(parameter)
    assert ft.check(model, optimizer) == []

    model = net()
    checked.attribute_of_the_model(model)
    del model.requires_grad
    assert ft.check(model) == []

    model = net()
    checked.nothing_trainable(model)
    ft.thaw(model, "head")
    assert ft.check(model) == []


def test_several_findings_come_in_a_fixed_order() -> None:
    model = net()
    optimizer = checked.leftover(model)
    model.head = nn.Linear(4, 2)
    model.trunk[1].weight.requires_grad_(False)
    model.trunk[0].bias.grad = torch.ones(4)
    model.trunk.requires_grad = False
    assert [finding.kind for finding in ft.check(model, optimizer)] == [
        "moving-statistics",
        "stale-gradient",
        "plain-attribute",
        "no-gradient",
        "unowned",
        "foreign",
        "leftover-state",
    ]


def _copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def _loaded(model: nn.Module) -> nn.Module:
    other = net()
    other.load_state_dict(model.state_dict())
    return other


def _with_its_trunk(model: nn.Module) -> nn.Module:
    other = net()
    other.trunk = model.trunk
    return other


@pytest.mark.parametrize("made", [_copied, _loaded, _with_its_trunk])
def test_a_binding_of_another_model(made: Callable[[nn.Module], nn.Module]) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    ft.bind(optimizer, model)
    findings = {finding.kind: finding for finding in ft.check(made(model), optimizer)}
    assert {"unowned", "foreign", "bound-elsewhere"} <= findings.keys()
    heads = ["head.weight", "head.bias"] if made is _with_its_trunk else ["trunk.0.weight", "trunk.0.bias"]
    assert list(findings["bound-elsewhere"].paths)[:2] == heads
    assert str(findings["bound-elsewhere"]).split("\n")[1:] == [
        "  AdamW is bound to another model, and they are parameters of that one.",
        "  It follows what is frozen there, and nothing that is frozen here.",
        "  Fix: make an optimizer for this model, and bind it: bind(torch.optim.AdamW(model.parameters()), model).",
    ]


def test_a_binding_of_what_contains_the_model_is_none_of_another() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    ft.bind(optimizer, model)
    assert [finding.kind for finding in ft.check(model.trunk, optimizer)] == ["foreign"]


class Block(nn.Module):
    """Computes its activations again during backward if it has a flag and is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.mark.parametrize("path", ["trunk.1", "trunk", ""])
def test_a_flag_for_checkpointing_that_comes_too_late(path: str) -> None:
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(4, 4), Block()))
    ft.freeze(model)
    ft.thaw(model) if path else None
    ft.freeze(model, *([path] if path else []))
    module = model.get_submodule(path)
    module.gradient_checkpointing = True
    findings = [finding for finding in ft.check(model) if finding.kind == "idle-checkpointing"]
    assert [finding.paths for finding in findings] == [(path or "(the model itself)",)]
    assert str(findings[0]).split("\n")[1:] == [
        f"  {type(module).__name__} is frozen, and got its flag for activation checkpointing since.",
        "  It asks for training mode, in which it is not, and keeps all activations.",
        f"  Fix: thaw(model, {path!r}), and freeze it again; or set the flag first.",
    ]
    ft.thaw(model, *([path] if path else []))
    ft.freeze(model, *([path] if path else []))
    assert "idle-checkpointing" not in {finding.kind for finding in ft.check(model)}
    module.gradient_checkpointing = False
    assert "idle-checkpointing" not in {finding.kind for finding in ft.check(model)}


@pytest.mark.parametrize("provoke", [checked.held_with_an_adapter, checked.held_with_another_head])
def test_what_follows_train_again_is_no_finding(provoke: Callable[[nn.Module], Optimizers]) -> None:
    model = net()
    provoke(model)
    assert [finding.kind for finding in ft.check(model.train())] == []
    model.eval()
    assert ft.check(model) == []
