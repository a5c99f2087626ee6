"""What a step is said to cost, held against steps that were made."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.zoo import ZOO
from torch import nn

import frostline.torch as ft
from frostline._core.reporting.bill import Bill
from frostline.torch._autograd import flops as _flops
from frostline.torch._autograd import saved as _saved
from only_torch.autograd.counted import PARTS, frozen_part, measured, predicted


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ZOO)
def test_every_number_is_what_a_step_shows(name: str, part: str) -> None:
    """Bytes and operations, exactly: for models of every kind and for every way to freeze a part of them."""
    model, example = ZOO[name](small=True)
    handle = ft.freeze(model, *frozen_part(model, part))
    found = ft.cost(model, *example, optimizer=torch.optim.AdamW)
    assert Bill.total([found.now]) == measured(model, example)
    if part == "prefix":
        handle.undo()
        assert Bill.total([found.all_trained]) == measured(model, example)


def test_a_wrong_formula_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control for operations: a formula that forgets the groups of a convolution."""
    model, example = ZOO["mobilenet_v3"](small=True)
    right = _flops._convolution
    monkeypatch.setattr(_flops, "_convolution", lambda args, made: right(args, made) * (8 // args[1].shape[1] + 1))
    found, shown = predicted(model, example), measured(model, example)
    assert found.forward_flops > shown.forward_flops
    assert found.weight_gradient_flops > shown.weight_gradient_flops
    assert found.saved_bytes == shown.saved_bytes


def test_a_saved_tensor_that_is_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control for bytes: accounting that misses one tensor of the graph."""
    model, example = ZOO["bert"](small=True)
    shown = measured(model, example)
    assert predicted(model, example) == shown
    held = _saved.SavedTensors.held.fget
    assert held is not None
    monkeypatch.setattr(
        _saved.SavedTensors, "held", property(lambda self: [each for each in held(self) if each[0] % 7])
    )
    assert predicted(model, example).saved_bytes < shown.saved_bytes


@pytest.mark.parametrize("name", ["resnet18", "bert", "llama", "lstm"])
def test_a_model_on_the_meta_device_costs_the_same(name: str) -> None:
    model, example = ZOO[name](small=True)
    ft.freeze(model, *frozen_part(model, "middle"))
    real = ft.cost(model, *example, optimizer=torch.optim.AdamW)
    meta = ft.cost(model.to("meta"), *example, optimizer=torch.optim.AdamW)
    assert meta.units == real.units
    # PyTorch remembers kernels without data, and forgets then that two results may be one.
    assert meta.now.peak_bytes == pytest.approx(real.now.peak_bytes, rel=0.01)


def test_a_model_of_fake_tensors_costs_the_same() -> None:
    with torch._subclasses.FakeTensorMode():
        fake = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
        example = torch.ones(2, 3, 8, 8)
    real = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2))
    assert ft.cost(fake, example) == ft.cost(real, torch.ones(2, 3, 8, 8))


def test_seventy_billion_parameters_need_no_memory() -> None:
    """Four layers of a Llama of 70 billion parameters, of which the last is trained."""
    with torch.device("meta"):
        layer = nn.TransformerEncoderLayer(8192, 64, 28672, dropout=0.0, batch_first=True, bias=False)
        model = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    ft.freeze(model, "layers[:-1]")
    found = ft.cost(model, torch.empty(1, 512, 8192, device="meta"), optimizer=torch.optim.AdamW)
    of_weights, of_scores = 2 * 512 * (4 * 8192 * 8192 + 2 * 8192 * 28672), 4 * 512 * 512 * 8192
    assert found.now.forward_flops == 4 * (of_weights + of_scores)
    assert found.now.weight_gradient_flops == of_weights
    assert found.all_trained.weight_gradient_flops == 4 * of_weights
    trained = 4 * (4 * 8192 * 8192 + 2 * 8192 * 28672 + 2 * 8192)
    assert (found.now.gradient_bytes, found.now.optimizer_bytes) == (trained, 2 * trained)


def test_units_add_up_and_are_those_of_the_model() -> None:
    model, example = ZOO["resnet18"](small=True)
    ft.freeze(model, *frozen_part(model, "middle"))
    found = ft.cost(model, *example, optimizer=torch.optim.AdamW)
    for name in ("now", "all_trained", "limit"):
        total = Bill.total(getattr(unit, name) for unit in found.units)
        assert total == replace(getattr(found, name), peak_bytes=0)
    assert [unit.path for unit in found.units if unit.path.startswith("layer1.0")] == [
        "layer1.0.conv1",
        "layer1.0.bn1",
        "layer1.0.conv2",
        "layer1.0.bn2",
        "layer1.0.relu",
    ]


def test_all_trained_is_what_the_thawed_model_costs() -> None:
    model, example = ZOO["mobilenet_v3"](small=True)
    before = ft.cost(model, *example, optimizer=torch.optim.AdamW)
    assert before.now == before.all_trained
    ft.freeze(model, *frozen_part(model, "prefix"))
    after = ft.cost(model, *example, optimizer=torch.optim.AdamW)
    assert (after.all_trained, after.now == before.now) == (before.now, False)


def test_a_frozen_use_is_frozen_now_and_trained_if_all_is() -> None:
    layer = nn.Linear(8, 8)
    model = nn.Sequential(nn.Linear(4, 8), ft.Frozen(layer), nn.Linear(8, 2))
    found = ft.cost(model, torch.ones(3, 4))
    assert found.now.weight_gradient_flops == 2 * 3 * (4 * 8 + 8 * 2)
    assert found.all_trained.weight_gradient_flops == 2 * 3 * (4 * 8 + 8 * 8 + 8 * 2)
    assert found.all_trained.gradient_bytes - found.now.gradient_bytes == 4 * (8 * 8 + 8)


def test_the_peak_is_that_of_a_step() -> None:
    """Of a transformer it is known to a hundredth; other kernels use memory of their own inside, which is not seen."""
    model, example = ZOO["bert"](small=True)
    given = sum(t.nbytes for t in (*model.parameters(), *model.buffers(), *example))
    found = ft.cost(model, *example).now.peak_bytes - given
    with torch.profiler.profile(profile_memory=True) as profiler:
        model(*example).sum().backward()
    assert found == pytest.approx(_peak(profiler), rel=0.01)


def _peak(profiler: Any) -> int:
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def test_what_is_differentiated_is_the_loss() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    target = torch.zeros(3, dtype=torch.long)
    found = ft.cost(model, torch.ones(3, 4), loss=lambda output: nn.functional.cross_entropy(output, target))
    plain = ft.cost(model, torch.ones(3, 4))
    # The logarithms of the softmax, the targets and the total weight of the classes.
    assert found.now.saved_bytes - plain.now.saved_bytes == 4 * 3 * 2 + 8 * 3 + 4
    assert [unit.path for unit in found.units] == ["", "0", "1"]


OPTIMIZERS: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda parameters: torch.optim.SGD(parameters, 0.1),
    lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    lambda parameters: torch.optim.AdamW(parameters, amsgrad=True),
    torch.optim.Adafactor,
    torch.optim.RMSprop,
    torch.optim.NAdam,
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_an_optimizer_keeps_what_is_said(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    ft.freeze(model, "0.weight")
    optimizer = make(model.parameters())
    said = ft.cost(model, torch.ones(3, 6), optimizer=optimizer).now.optimizer_bytes
    assert said == ft.cost(model, torch.ones(3, 6), optimizer=make).now.optimizer_bytes
    assert not optimizer.state
    model(torch.ones(3, 6)).sum().backward()
    optimizer.step()
    assert said == sum(t.nbytes for kept in optimizer.state.values() for t in kept.values() if t.dim())
    assert ft.cost(model, torch.ones(3, 6), optimizer=optimizer).now.optimizer_bytes == said


def test_moments_of_what_is_frozen_are_there_and_not_needed() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3, 6)).sum().backward()
    optimizer.step()
    ft.freeze(model, "0")
    found = ft.cost(model, torch.ones(3, 6), optimizer=optimizer)
    assert (found.now.optimizer_bytes, found.limit.optimizer_bytes) == (8 * (35 + 12), 8 * 12)


def test_the_report_shows_the_cost() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    found = ft.cost(model, torch.ones(3, 4))
    report = ft.report(model, cost=found)
    assert str(report) == f"{ft.report(model)}\n\n{found}"
    assert report._repr_html_() == ft.report(model)._repr_html_() + found._repr_html_()
    assert report.to_dict() == ft.report(model).to_dict() | {"cost": found.to_dict()}
