"""F10: modules that write into their buffers when they are called, in evaluation mode too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError
from only_torch.bits import contents, moved
from only_torch.field.evidence import train


def _batch() -> torch.Tensor:
    return torch.randn(6, 4) * 3 + 1


def _net(inner: nn.Module) -> nn.Module:
    model = nn.Sequential()
    model.add_module("backbone", nn.Sequential(nn.Linear(4, 4), inner))
    model.add_module("head", nn.Linear(4, 2))
    return model


def _by_hand(model: nn.Module) -> None:
    model.get_submodule("backbone").requires_grad_(False)


class Codebook(nn.Module):
    """A vector-quantiser whose codes are a moving average, as in VQ-VAE: no parameter moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.codes.lerp_(x.detach().mean(0), 0.1)
        return x + self.codes


def _spectral() -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))


def _observer() -> nn.Module:
    quantize = torch.ao.quantization.FakeQuantize(observer=torch.ao.quantization.MovingAverageMinMaxObserver)
    quantize(torch.linspace(-1, 1, 4))
    return quantize


WRITERS: list[tuple[str, Callable[[], nn.Module], set[str]]] = [
    (
        "spectral norm",
        _spectral,
        {"backbone.1.parametrizations.weight.0._u", "backbone.1.parametrizations.weight.0._v"},
    ),
    (
        "observer of quantisation",
        _observer,
        {
            "backbone.1.scale",
            "backbone.1.zero_point",
            "backbone.1.activation_post_process.min_val",
            "backbone.1.activation_post_process.max_val",
        },
    ),
    ("codebook", Codebook, {"backbone.1.codes"}),
]


@pytest.mark.parametrize(("name", "make", "buffers"), WRITERS, ids=[w[0] for w in WRITERS])
def test_f10_modules_that_write_when_called_are_still(
    name: str, make: Callable[[], nn.Module], buffers: set[str]
) -> None:
    """HyperGAN PR#330: spectral norm iterates in a frozen layer, and the effective weight moves."""
    x = _batch()
    by_hand, frozen, used = _net(make()), _net(make()), _net(make())
    _by_hand(by_hand)
    ft.freeze(frozen, "backbone")
    layer = used.backbone
    used.backbone = ft.Frozen(layer)
    before = [contents(model) for model in (by_hand, frozen, used, layer)]
    for model in (by_hand, frozen, used):
        train(model, x, steps=1)
    heads = {"head.weight", "head.bias"}
    expected = [heads | buffers, heads, heads, set()]
    assert [moved(b, m) for b, m in zip(before, (by_hand, frozen, used, layer), strict=True)] == expected


def test_f10_old_style_spectral_norm_is_still() -> None:
    """HyperGAN PR#330, with the hook-based spectral_norm of torch.nn.utils."""
    x = _batch()
    model = _net(nn.utils.spectral_norm(nn.Linear(4, 4)))
    _by_hand(model)
    before = contents(model)
    train(model, x, steps=1)
    # By hook the weight is a plain tensor, so what shows is its ingredients.
    assert moved(before, model) >= {"backbone.1.weight_u", "backbone.1.weight_v"}
    ft.freeze(model, "backbone")
    before, expected = contents(model), model.backbone(x)
    train(model, x, steps=1)
    assert moved(before, model) == {"head.weight", "head.bias"}
    assert torch.equal(model.backbone(x), expected)


def test_f10_the_guard_sees_what_a_norm_special_case_would_miss() -> None:
    """HyperGAN PR#330: frozen by hand, an averaging codebook moves, and the guard says which."""
    model = _net(Codebook())
    _by_hand(model)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model(_batch())
    assert [movement.path for movement in caught.value.moved] == ["backbone.1.codes"]
