"""A parametrization that is registered on a held module is held with it (L7, L14)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import frostline.torch as ft
from only_torch.bits import contents, moved, training

X = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


class Counting(nn.Module):
    """A parametrization that counts how often it computed the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("table", torch.zeros(5000))

    def forward(self, weight: Tensor) -> Tensor:
        self.count.add_(1)
        self.table.add_(1)
        return weight * 2


class Wrapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def alone() -> tuple[nn.Module, Any]:
    layer = nn.Linear(2, 2)
    return layer, layer


def deep() -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2))
    return model, model[0][0]


def wrapped() -> tuple[nn.Module, Any]:
    model = Wrapping()
    return model, model.linear


def count(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer, "weight", Counting())


def count_twice(layer: nn.Module) -> None:
    count(layer)
    count(layer)


def normalise(layer: Any) -> None:
    parametrizations.spectral_norm(layer)
    layer.parametrizations.weight[0]._u.copy_(torch.tensor([0.6, 0.8]))  # far from what a call would make of it


@pytest.mark.parametrize("register", [count, count_twice, normalise])
@pytest.mark.parametrize("build", [alone, deep, wrapped])
@pytest.mark.parametrize("mode", ["eval", "follow"])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_parametrization_of_a_held_module_stands_still(
    build: Callable[[], tuple[nn.Module, Any]], register: Callable[[nn.Module], None], mode: Any, is_told: bool
) -> None:
    model, layer = build()
    handle = ft.freeze(model, mode=mode)
    model.train()(X)
    register(layer)
    if is_told:
        model.train()
        assert training(model) == ({path for path, _ in model.named_modules()} if mode == "follow" else set())
    before = contents(model)
    for _ in range(3):
        model(X)
    assert moved(before, model) == set()
    handle.undo()
    model.train()(X)
    assert moved(before, model) != set()
    assert training(model) == {path for path, _ in model.named_modules()}


def test_a_second_parametrization_of_a_frozen_one() -> None:
    layer = nn.Linear(2, 2)
    normalise(layer)
    ft.freeze(layer)
    count(layer)
    before = contents(layer)
    layer(X)
    assert moved(before, layer) == set()
    layer.train()(X)
    assert (moved(before, layer), training(layer)) == (set(), set())
    parametrize.remove_parametrizations(layer, "weight")
    assert not layer.weight.requires_grad
    assert type(layer).__name__ == "Linear"


def test_an_appended_layer_that_trains_is_not_held() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    ft.freeze(model)
    model.append(nn.BatchNorm1d(2))
    model.train()
    assert training(model) == {"", "1"}
    before = contents(model)
    model(X)
    assert moved(before, model) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
