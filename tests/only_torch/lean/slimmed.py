"""What a call saves, and whether slimming changes a gradient."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline.torch._autograd.codecs import Codec
from frostline.torch._lean import slim as _slim
from frostline.torch._lean import slimming as _slimming
from frostline.torch._lean.slim import names, slots
from only_torch.bits import bits

PICTURE = torch.linspace(-2, 2, 384).sin().reshape(2, 3, 8, 8)

# What is smaller in the graph of a `frozen_block`.
ALL = {"ConvolutionBackward0.input": 2, "NativeBatchNormBackward0.input": 1, "ReluBackward0.result": 1}

Bits = tuple[str, tuple[int, ...], bytes]


class Through(nn.Module):
    """A function as a module, and frozen layers after it, so that its result is used."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x)
        for layer in self.layers:
            y = layer(y)
        return y


def block() -> nn.Sequential:
    """One layer of each kind that matters."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 3, padding=2))


def frozen_block() -> nn.Module:
    """The same, frozen by hand."""
    return block().requires_grad_(False).eval()


@contextmanager
def slimming(model: nn.Module) -> Iterator[None]:
    """Within this context the model is slimmed, and nothing else; what is small counts too."""
    take_back = _slimming.attach(model)
    try:
        with mock.patch.object(_slim, "SMALL", 0):
            yield
    finally:
        take_back()


def derivatives(model: nn.Module, x: Tensor, *, second: bool = True) -> dict[str, Bits | None]:
    """The result of a call, and gradients of it by the input and by what is trainable, once and twice over."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    torch.default_generator.manual_seed(0)
    asked = {"x": x} | ft.trainable(model)
    y = model(x)
    seed = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape).requires_grad_(second)
    first = torch.autograd.grad(y, list(asked.values()), seed, create_graph=second, allow_unused=True)
    found = {"y": y} | {f"d{name}": g for name, g in zip(asked, first, strict=True)}
    if second:
        asked["seed"] = seed
        total = sum(g.square().sum() for g in first if g is not None and g.requires_grad)
        if isinstance(total, Tensor):
            again = torch.autograd.grad(total, list(asked.values()), allow_unused=True)
            found |= {f"dd{name}": g for name, g in zip(asked, again, strict=True)}
    return {name: None if value is None else bits(value) for name, value in found.items()}


def slimmed(y: Tensor) -> dict[str, int]:
    """How many saved tensors are dropped or smaller in the graph of a result, by node and name."""
    found: dict[str, int] = {}
    for node in graph(y):
        for name in names(type(node)):
            for slot in slots(node, name):
                if isinstance(getattr(slot.unpack_hook, "__self__", None), Codec):
                    key = f"{node.name()}.{name}"
                    found[key] = found.get(key, 0) + 1
    return found


def graph(y: Tensor) -> list[Any]:
    """Every node below a result."""
    found: list[Any] = [y.grad_fn]
    for node in found:
        found += [below for below, _ in node.next_functions if below is not None and below not in found]
    return found


def agree(model: nn.Module, x: Tensor, *, second: bool = True) -> dict[str, int]:
    """Asserts that slimming changes no bit in two calls; returns what it made smaller in the last one."""
    plain = copy.deepcopy(model)
    expected = [derivatives(plain, x, second=second) for _ in range(2)]
    with slimming(model):
        found = [derivatives(model, x, second=second) for _ in range(2)]
        y = model(x.detach().clone(memory_format=torch.preserve_format).requires_grad_())
        names = slimmed(y)
    assert found == expected
    return names
