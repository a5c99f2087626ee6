"""Weights that Accelerate has offloaded are on the meta device: a guard, which would prove nothing, refuses them."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_submodules
from torch import nn

import frostline.torch as ft
from frostline.errors import UnsupportedError


def test_offloaded_weights_are_refused_and_can_be_brought_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    ft.freeze(model, "[0]")
    cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(UnsupportedError) as caught, ft.guard(model):
        raise AssertionError
    assert str(caught.value).split("\n") == [
        "guard(model) cannot read 2 of 2 frozen tensors:",
        "  0.weight is on the meta device, without data",
        "  0.bias is on the meta device, without data",
        'Give them data first: model.to_empty(device="cpu"); or end their offloading: '
        "accelerate.hooks.remove_hook_from_submodules(model).",
    ]
    remove_hook_from_submodules(model)
    with ft.guard(model) as watching:
        pass
    assert watching.paths == {"0.weight", "0.bias"}
