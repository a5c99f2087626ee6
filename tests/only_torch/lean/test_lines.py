"""A lean model has a frost line, and can be exported, as any other."""

from collections.abc import Callable

import pytest
import torch
from benchmarks.zoo import resnet18
from torch import nn

import frostline.torch as ft


def leaned(**options: object) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model, (images,) = resnet18(small=True)
    ft.freeze(model, "**", "!layer4", "!fc")
    ft.lean(model, **options)  # type: ignore[arg-type]
    return model, images


@pytest.mark.parametrize("options", [{}, {"exact": False}, {"memory_budget": 1.0}], ids=str)
@pytest.mark.parametrize("at", [None, "layer3"])
def test_the_line_of_a_lean_model_is_drawn_and_trains(options: dict[str, object], at: str | None) -> None:
    model, images = leaned(**options)
    line = ft.frostline(model, images, at=at)
    line.above(*line.below(images)).sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(ft.trainable(model))


@pytest.mark.parametrize("at", [None, "layer3"])
def test_both_parts_of_an_exactly_lean_model_are_bitwise_the_whole(at: str | None) -> None:
    model, images = leaned()
    line = ft.frostline(model, images, at=at)
    model.eval()
    assert torch.equal(line.above(*line.below(images)), model(images))


@pytest.mark.parametrize("held", [ft.lean, lambda model: None], ids=["lean", "frozen"])
def test_a_root_that_is_stood_in_for_can_be_exported(held: Callable[[nn.Module], object]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    ft.freeze(model)
    held(model)
    batch = torch.randn(3, 4)
    assert torch.equal(torch.export.export(model, (batch,)).module()(batch), model(batch))
