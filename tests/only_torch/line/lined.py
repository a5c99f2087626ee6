"""Models with a frost line, and comparisons of both their parts."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.zoo import ZOO
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import frostline.torch as ft
from frostline.torch._line.line import FrostLine
from only_torch.bits import bits

PREFIXES = {
    "resnet18": ("conv1", "bn1", "layer1", "layer2"),
    "mobilenet_v3": ("features[:4]",),
    "densenet": ("features.*0", "features.dense1"),
    "unet": ("down",),
    "vit": ("patch_embed", "cls_token", "pos_embed", "blocks[:2]"),
    "bert": ("embeddings", "layer[:2]"),
    "llama": ("embed_tokens", "layers[:2]"),
    "lstm": ("embed",),
}
"""Selectors that freeze the first part of each kind of model."""


class Net(nn.Module):
    """A `body` with batch norm and dropout, a `neck` with them, and a `head`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.neck = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.neck(self.body(x)))


def small() -> tuple[Net, Tensor]:
    """Returns a small model with a frozen body, in training mode, and its example."""
    torch.default_generator.manual_seed(0)
    model = Net()
    ft.freeze(model, "body")
    return model.train(), torch.randn(3, 4)


def frozen(name: str, *selectors: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Returns a small model of a kind in training mode, and its example."""
    torch.default_generator.manual_seed(0)
    model, example = ZOO[name](small=True)
    ft.freeze(model, *(selectors or PREFIXES[name]))
    return model.train(), example


def batch(example: Tensor, samples: int) -> Tensor:
    """Returns other samples like those of an example."""
    shape = (samples, *example.shape[1:])
    return torch.randn(shape) if example.is_floating_point() else torch.randint(50, shape)


def outputs(returned: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Returns the bytes of all tensors in the output of a model."""
    return [bits(leaf) for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]


def both_ways(model: nn.Module, line: FrostLine, *inputs: Tensor, **named: Tensor) -> tuple[Any, Any]:
    """Returns the output of the model and that of its two parts, with the same random numbers."""
    torch.default_generator.manual_seed(1)
    want = model(*inputs, **named)
    crossing = [value.clone(memory_format=torch.contiguous_format) for value in line.below(*inputs, **named)]
    torch.default_generator.manual_seed(1)
    return want, line.above(*crossing)


def crossing(line: FrostLine) -> list[tuple[str, tuple[int, ...]]]:
    """Returns names and shapes at the boundary."""
    return [(each.name, each.shape) for each in line.boundary]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, returned: Any) -> None:
    """Takes one step of training on the whole output of a model."""
    optimizer.zero_grad()
    sum(leaf.float().square().mean() for leaf in pytree.tree_leaves(returned) if leaf.requires_grad).backward()
    optimizer.step()
