"""What a lean model is said to cost, held against what a step of it keeps."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from benchmarks.memory import allocations
from benchmarks.zoo import ZOO
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import frostline
import frostline.torch as ft
from frostline._core.reporting.cost import Cost
from frostline.torch._autograd import saved as _saved
from frostline.torch._holding.patch import patches
from frostline.torch._lean import slim as _slim
from frostline.torch._lean.checkpointed import CheckpointedForward
from frostline.torch._lean.folding import folded_weights
from only_torch.autograd.counted import frozen_part
from only_torch.lean.slimmed import derivatives, slimmed

WAYS: dict[str, dict[str, Any]] = {"lean": {}, "folded": {"exact": False}}
BUDGETS = {"resnet18": 0.85, "mobilenet_v3": 0.7, "vit": 0.8}
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, *_, **__: 4 * query.numel() * key[-2]
}
"""What PyTorch's counter does not know: the scores, and the sums by them."""

NOTHING = 1 << 40
"""Bytes below which slimming leaves all of these models alone, so that folding and budgets show by themselves."""

CASES = [(name, part) for name in BUDGETS for part in ("suffix", "middle")]


def frozen(name: str, part: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.default_generator.manual_seed(0)
    model, example = ZOO[name](small=True)
    ft.freeze(model, *frozen_part(model, part))
    return model, example


@cache
def plain_cost(name: str, part: str) -> Cost:
    """Without lean; once for all tests."""
    model, example = frozen(name, part)
    return ft.cost(model, *example)


def kept(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Bytes that the allocator holds after a forward pass, without the result; the second, as the first one settles."""
    model(*example)
    gc.collect()  # what is collected in between would be counted as given back
    with allocations() as ledger:
        result = model(*(each.clone() for each in example))
    return ledger.held - result.untyped_storage().nbytes()


def flops(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    """Operations of a step, forward and backward, as PyTorch's own counter sees them."""
    model(*example)
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        model(*example).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("way", "small"), [("lean", 0), ("folded", 0), ("folded", NOTHING)])
@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_step_keeps_what_is_said(name: str, part: str, way: str, small: int) -> None:
    model, example = frozen(name, part)
    plain = plain_cost(name, part)
    ft.lean(model, **WAYS[way])
    with mock.patch.object(_slim, "SMALL", small):
        before = ft.cost(model, *example)
        shown = kept(model, example)
    assert before.now.saved_bytes == pytest.approx(shown, rel=0.02)
    has_norms = name != "vit"
    is_less = has_norms and (small == 0 or way == "folded")
    assert (before.now.saved_bytes < plain.now.saved_bytes) == is_less
    assert bool(list(folded_weights(model))) == (has_norms and way == "folded")
    for count in ("forward_flops", "input_gradient_flops", "weight_gradient_flops"):
        assert getattr(before.now, count) == getattr(plain.now, count)
    assert (before.all_trained, before.limit) == (plain.all_trained, plain.limit)


@pytest.mark.parametrize(("name", "part"), CASES)
def test_a_budget_costs_the_forward_that_it_repeats(name: str, part: str) -> None:
    model, example = frozen(name, part)
    plain, spent = plain_cost(name, part), flops(model, example)
    budget = round(BUDGETS[name] * plain.now.saved_bytes)
    ft.lean(model, memory_budget=budget)
    with mock.patch.object(_slim, "SMALL", NOTHING):
        before = ft.cost(model, *example)
        shown = kept(model, example)
        repeated = flops(model, example) - spent
        assert ft.cost(model, *example) == before  # blocks are chosen in it, or before
    assert any(isinstance(patch, CheckpointedForward) for patch in patches(model))
    assert before.now.saved_bytes == pytest.approx(shown, rel=0.02)
    assert before.now.saved_bytes <= budget
    assert before.now.forward_flops - plain.now.forward_flops == repeated > 0
    assert before.now.input_gradient_flops == plain.now.input_gradient_flops
    assert (before.all_trained, before.limit) == (plain.all_trained, plain.limit)


def network() -> nn.Sequential:
    block = [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Hardtanh()]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(*block), nn.Conv2d(4, 2, 1))


X = torch.linspace(-2, 2, 2 * 3 * 64 * 64).sin().reshape(2, 3, 64, 64)


def leaned() -> nn.Sequential:
    model = network()
    ft.freeze(model, "[1:]")
    ft.lean(model)
    return model


def test_what_is_counted_by_hooks_alone_is_not_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: an account that slimming does not see through."""
    model = leaned()
    shown = kept(model, (X,))
    assert ft.cost(model, X).now.saved_bytes == pytest.approx(shown, rel=0.02)
    monkeypatch.setattr("frostline.torch._lean.slim.SavedTensor", ())
    monkeypatch.setattr("frostline.torch._lean.slim.isinstance", lambda *_: False, raising=False)
    assert ft.cost(model, X).now.saved_bytes > 1.5 * shown


def test_folded_weights_that_count_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control for folding."""
    model, example = frozen("resnet18", "suffix")
    ft.lean(model, exact=False)
    found = ft.cost(model, *example).now.saved_bytes
    monkeypatch.setattr("frostline.torch._cost.step.folded_weights", lambda model: [])
    assert ft.cost(model, *example).now.saved_bytes > 1.02 * found


def test_the_model_is_lean_as_before() -> None:
    model = leaned()
    expected, names = derivatives(model, X), slimmed(model(X))
    hooks = [dict(module._forward_hooks) for module in model.modules()]
    ft.cost(model, X)
    assert [dict(module._forward_hooks) for module in model.modules()] == hooks
    assert (derivatives(model, X), slimmed(model(X))) == (expected, names)
    assert len(names) == 6


def test_a_larger_batch_is_slimmed_where_a_smaller_one_was_not() -> None:
    model = leaned()
    for _ in range(3):
        model(X[:, :, :8, :8]).sum().backward()
    assert ft.cost(model, X).now.saved_bytes == pytest.approx(kept(model, (X,)), rel=0.02)


def test_real_steps_are_counted_too() -> None:
    """Around a real forward pass the same hooks see what is left."""
    model = leaned()
    expected = derivatives(model, X, second=False)
    with _saved.saving(model) as saved:
        found = derivatives(model, X, second=False)
        y = model(X)
    assert saved.nbytes == ft.cost(model, X).now.saved_bytes
    assert found == expected
    y.sum().backward()
    assert saved.nbytes == 0


@pytest.mark.parametrize("in_place", [True, False], ids=["compile()", "torch.compile"])
def test_what_is_compiled_is_left_alone(in_place: bool) -> None:
    model = network()
    ft.freeze(model, "[1:]")
    plain = ft.cost(model, X)
    ft.lean(model)
    if in_place:
        model.compile(backend="eager")
    found = ft.cost(model if in_place else torch.compile(model, backend="eager"), X)
    assert (found.now, found.all_trained) == (plain.now, plain.all_trained)


def test_a_part_is_lean() -> None:
    model = network()
    ft.freeze(model, "[1:]")
    plain = ft.cost(model, X).now.saved_bytes
    ft.lean(model[1])
    found = ft.cost(model, X).now.saved_bytes
    assert found == pytest.approx(kept(model, (X,)), rel=0.02)
    assert found < plain


def test_a_budget_that_cannot_be_met_is_said_as_by_a_step() -> None:
    model, example = frozen("vit", "middle")
    ft.lean(model, memory_budget=1000)
    with pytest.raises(frostline.errors.BudgetError) as said:
        ft.cost(model, *example)
    with pytest.raises(frostline.errors.BudgetError) as shown:
        model(*example)
    assert str(said.value) == str(shown.value)


def test_undone_it_costs_what_it_did() -> None:
    model, example = frozen("resnet18", "middle")
    plain = ft.cost(model, *example)
    with ft.lean(model, exact=False, memory_budget=0.9):
        assert ft.cost(model, *example).now.saved_bytes < plain.now.saved_bytes
    assert ft.cost(model, *example) == plain
