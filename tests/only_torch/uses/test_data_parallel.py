"""Replicas as ``nn.DataParallel`` makes them, without the devices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import frostline.torch as ft


class Counting(nn.Module):
    """Writes a buffer of its own in each call, so that its forward is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.register_buffer("calls", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * self.weight + 0 * self.calls


def replica_of(model: nn.Module, factor: float) -> nn.Module:
    """Does what ``torch.nn.parallel.replicate`` does for one device; the copies are scaled, so that they differ."""
    modules = list(model.modules())
    copies = [module._replicate_for_data_parallel() for module in modules]
    for module, copy in zip(modules, copies, strict=True):
        for name, child in module._modules.items():
            setattr(copy, name, copies[modules.index(child)])
        for name, parameter in module._parameters.items():
            setattr(copy, name, parameter.detach() * factor)
        for name, buffer in module._buffers.items():
            copy._buffers[name] = buffer.clone()
    return copies[0]


def test_replica_of_a_frozen_use_computes_with_its_own_tensors() -> None:
    layer = Counting()
    for use in (ft.Frozen(layer), ft.Frozen(nn.Sequential(layer))):
        assert replica_of(use, 10.0)(torch.ones(1)).item() == 20
        assert use(torch.ones(1)).item() == 2
    assert layer.calls.item() == 0


def test_replica_of_a_held_model_computes_with_its_own_tensors() -> None:
    model = nn.Sequential(Counting())
    ft.freeze(model)
    replica = replica_of(model, 10.0)
    assert replica(torch.ones(1)).item() == 20
    assert replica[0].calls.item() == 0
    assert model(torch.ones(1)).item() == 2


def test_nothing_is_left_of_it_after_the_thaw() -> None:
    model = nn.Sequential(Counting())
    before = set(vars(model[0]))
    ft.freeze(model).undo()
    assert set(vars(model[0])) == before
    assert replica_of(model, 10.0)(torch.ones(1)).item() == 20
    assert model(torch.ones(1)).item() == 2
