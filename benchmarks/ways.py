"""The ways to freeze that are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

import frostline.torch as ft
from benchmarks.models import MODELS

Params = Iterable[nn.Parameter]


def by_hand(model: nn.Sequential) -> Params:
    """What everybody writes."""
    model.middle.requires_grad_(False)
    model.middle.eval()
    return [p for p in model.parameters() if p.requires_grad]


def frozen_use(model: nn.Sequential) -> Params:
    """``Frozen(layer)`` in place of the layer."""
    model.middle = ft.Frozen(model.middle)
    return ft.trainable(model).values()


def frozen_in_place(model: nn.Sequential) -> Params:
    """``freeze(model, "middle")``."""
    ft.freeze(model, "middle")
    return ft.trainable(model).values()


WAYS: dict[str, Callable[[nn.Sequential], Params]] = {
    "by hand": by_hand,
    "Frozen": frozen_use,
    "freeze": frozen_in_place,
}


@dataclass
class Trainee:
    """A model that is frozen in one way, with what a training step needs."""

    model: nn.Sequential
    batch: torch.Tensor
    call: Callable[[torch.Tensor], torch.Tensor]
    optimizer: torch.optim.Optimizer
    losses: list[float] = field(default_factory=list)

    def step(self) -> None:
        """Forward, backward, AdamW."""
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def loss(self) -> torch.Tensor:
        """Of the forward pass alone."""
        out = self.call(self.batch)
        return F.cross_entropy(out.flatten(0, -2), torch.zeros(out.numel() // out.shape[-1], dtype=torch.long))


def made(name: str) -> tuple[nn.Sequential, torch.Tensor]:
    """A model that is the same every time, and its batch."""
    torch.manual_seed(0)
    model, batch = MODELS[name][1]()
    return model.train(), batch


def share(source: nn.Module, target: nn.Module) -> None:
    """Lets `target` hold the bytes of `source`: where memory lies can make a step 10 % slower or faster."""
    for tensors in ("parameters", "buffers"):
        for mine, theirs in zip(getattr(target, tensors)(), getattr(source, tensors)(), strict=True):
            mine.data = theirs.data


def trainee(name: str, way: str, *, compiled: bool, like: Trainee | None = None) -> Trainee:
    """A model, frozen in one way; its frozen part shares the bytes of `like`'s."""
    model, batch = made(name)
    if like is not None:
        share(like.model.middle, model.middle)
    trained = list(WAYS[way](model))
    call = torch.compile(model) if compiled else model
    return Trainee(model, batch, call, torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1))
