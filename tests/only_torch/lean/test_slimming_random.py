"""Slimming of networks of every kind, and of networks that nobody drew."""

import copy

import pytest
import torch
from benchmarks.zoo import ZOO
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import frostline.torch as ft
from only_torch.bits import gradients
from only_torch.lean.slimmed import derivatives, slimming

LAYERS = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "conv without bias": lambda: nn.Conv2d(4, 4, 1, bias=False),
    "conv by channel": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
    "transposed conv": lambda: nn.ConvTranspose2d(4, 4, 3, padding=1),
    "batch norm": lambda: nn.BatchNorm2d(4).eval(),
    "batch norm in training": lambda: nn.BatchNorm2d(4),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "relu": lambda: nn.ReLU(),
    "relu in place": lambda: nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)),
    "relu6": lambda: nn.ReLU6(),
    "leaky relu in place": lambda: nn.LeakyReLU(inplace=True),
    "prelu": lambda: nn.PReLU(4),
    "hardswish": lambda: nn.Hardswish(),
    "hardsigmoid": lambda: nn.Hardtanh(-0.5, 0.5),
    "gelu": lambda: nn.GELU(),
    "dropout": lambda: nn.Dropout(0.3),
    "max pool": lambda: nn.MaxPool2d(3, 1, 1),
    "average pool": lambda: nn.AvgPool2d(3, 1, 1),
}


class Drawn(nn.Module):
    """Layers in a row; what came out of an earlier one may be added, or be a factor."""

    def __init__(self, rows: list[tuple[str, bool, str, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LAYERS[name]() for name, *_ in rows)
        self.how = [(how, back) for *_, how, back in rows]
        for layer, (_, is_free, _, _) in zip(self.layers, rows, strict=True):
            layer.requires_grad_(is_free)

    def forward(self, x: Tensor) -> Tensor:
        passed = [x * 1]
        for layer, (how, back) in zip(self.layers, self.how, strict=True):
            y = layer(passed[-1].clone() if how == "copied" else passed[-1] + 0)
            other = passed[max(0, len(passed) - 1 - back)]
            if how == "added":
                y = y + other
            elif how == "multiplied":
                y = y * other.sigmoid()
            elif how == "activated":
                y = F.relu(y)
            passed.append(y)
        return passed[-1]


ROWS = st.tuples(
    st.sampled_from(sorted(LAYERS)),
    st.sampled_from([False, False, True]),
    st.sampled_from(["plain", "copied", "added", "multiplied", "activated"]),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=7), last=st.booleans(), seed=st.integers(0, 9))
def test_no_bit_changes_in_any_network(rows: list[tuple[str, bool, str, int]], last: bool, seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    model, x = Drawn(rows), torch.randn(2, 4, 5, 5)
    if last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = copy.deepcopy(model)
    expected = [derivatives(plain, x) for _ in range(2)]
    with slimming(model):
        assert [derivatives(model, x) for _ in range(2)] == expected


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("name", ZOO)
def test_no_bit_changes_in_any_known_network(name: str, scattered: bool) -> None:
    model, inputs = ZOO[name](small=True)
    parameters = [*dict(model.named_parameters())]
    ft.freeze(model, *(parameters[1::2] if scattered else parameters[2:]))

    def step() -> object:
        torch.default_generator.manual_seed(0)
        model.zero_grad()
        model(*inputs).square().mean().backward()
        return gradients(model)

    buffers = copy.deepcopy(model.state_dict())
    expected = [step() for _ in range(2)]
    model.load_state_dict(buffers)
    with slimming(model):
        assert [step() for _ in range(2)] == expected
