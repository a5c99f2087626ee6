"""Statistics of a frozen norm stand still when a weight average measures them anew (L7, L14)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import frostline.torch as ft
from only_torch.bits import contents, moved

STATISTICS = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    for _ in range(2):
        model(torch.randn(8, 3) + 5)
    return model


def batches() -> list[torch.Tensor]:
    return [torch.linspace(0, 3, 24).reshape(8, 3)]


def averaged(model: nn.Module) -> None:
    update_bn(batches(), model)


def averaged_with_an_average(model: nn.Module) -> None:
    average = AveragedModel(model)
    average.update_parameters(model)
    update_bn(batches(), average)
    model.load_state_dict(average.module.state_dict())


def reset_one_by_one(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()


@pytest.mark.parametrize("measure", [averaged, averaged_with_an_average, reset_one_by_one])
@pytest.mark.parametrize("mode", ["eval", "follow"])
class TestMeasuredAnew:
    def test_those_of_a_frozen_norm_stand_still(self, measure: Callable[[nn.Module], None], mode: str) -> None:
        model = net()
        ft.freeze(model, "[:2]", mode=mode)
        before = contents(model)
        measure(model)
        assert moved(before, model) == {name.replace("1.", "3.") for name in STATISTICS}
        assert model[1].momentum == 0.1

    def test_those_of_a_thawed_norm_do_not(self, measure: Callable[[nn.Module], None], mode: str) -> None:
        """Negative control, and the way back."""
        model = net()
        ft.freeze(model, "[:2]", mode=mode).undo()
        before = contents(model)
        measure(model)
        assert moved(before, model) >= STATISTICS


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_in_a_copy(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = net()
    ft.freeze(model, "[:2]")
    other = copied(model)
    before = contents(other)
    averaged(other)
    assert moved(before, other).isdisjoint(STATISTICS)


def test_of_a_norm_that_is_frozen_in_part_move() -> None:
    """It is not held, and check says so."""
    model = net()
    ft.freeze(model, "[1].weight")
    assert [finding.kind for finding in ft.check(model)] == ["moving-statistics"]
    before = contents(model)
    averaged(model)
    assert moved(before, model) >= STATISTICS


@pytest.mark.parametrize("mode", ["eval", "follow"])
@pytest.mark.parametrize("measure", [averaged, reset_one_by_one])
def test_those_of_a_layer_stand_still_when_its_use_is_measured(measure: Callable[[nn.Module], None], mode: str) -> None:
    norm, pair = nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    norm(batches()[0])
    pair(batches()[0])
    before = [contents(norm), contents(pair)]
    model = nn.Sequential(ft.Frozen(norm, mode=mode), ft.Frozen(pair, mode=mode))
    measure(model)
    assert [contents(norm), contents(pair)] == before
