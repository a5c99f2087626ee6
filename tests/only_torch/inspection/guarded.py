"""A model with one frozen tensor to be guarded, and a change of it that is as small as can be."""

from __future__ import annotations

import torch
from torch import nn

import frostline.torch as ft


def holder(tensor: torch.Tensor, *, buffer: bool = False) -> nn.Module:
    """A model with one frozen tensor, and a trainable one."""
    model = nn.Module()
    model.part, model.head = nn.Module(), nn.Linear(1, 1)
    model.part.register_parameter("scale", nn.Parameter(torch.ones(1)))
    if buffer:
        model.part.register_buffer("t", tensor)
    else:
        model.part.register_parameter("t", nn.Parameter(tensor))
    ft.freeze(model, "part")
    return model


def change(tensor: torch.Tensor, position: int) -> None:
    """Flips the lowest bit of one element, in place."""
    with torch.no_grad():
        flat = tensor.detach().view(-1)
        data = flat[position : position + 1].clone().view(torch.uint8)
        data[0] ^= 1
        flat[position : position + 1] = data.view(tensor.dtype)
