"""One layer, trained by one model and constant in another: freezing belongs to a use of a layer, not to the layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import nn

import frostline.torch as ft
from frostline.demo.scans import Scans


@final
@dataclass(frozen=True)
class Gradients:
    """The norms of two gradients through one use of a layer.

    Attributes:
        weight: with respect to the layer's weight; None if there is no gradient at all.
        input: with respect to what goes into the layer.
    """

    weight: float | None
    input: float


@final
@dataclass(frozen=True)
class Sharing:
    """What one layer does in ``m0 = Sequential(l1, l2, l3)`` and in ``m1 = Sequential(l1, Frozen(l2), l3)``.

    Attributes:
        m0: the gradients through the model that trains the layer.
        m1: the gradients through the model that holds it still.
        values: how many values the layer's weight has.
        changed_by_m0: how many of them a step of `m0` changes.
        changed_by_m1: how many of them a step of `m1` changes.
        seen_by_m1: how far a step of `m0` moves what the frozen use computes, at most.
    """

    m0: Gradients
    m1: Gradients
    values: int
    changed_by_m0: int
    changed_by_m1: int
    seen_by_m1: float


def share(scans: Scans) -> Sharing:
    """Builds both models, takes a step of each on some scans, and looks at the layer.

    Example:
        >>> from frostline.demo.scans import NEW, one_of_each
        >>> shared = share(one_of_each(NEW))
        >>> shared.m1.weight, shared.changed_by_m1, shared.changed_by_m0
        (None, 0, 1024)
    """
    torch.manual_seed(0)
    l1, l2, l3 = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 5)
    frozen = ft.Frozen(l2)
    hidden = l1(scans.images.flatten(1)).detach()
    m0, m1 = (_gradients(hidden, use, l3, l2.weight, scans.labels) for use in (l2, frozen))
    changed_by_m1 = _changed_by_a_step(nn.Sequential(nn.Flatten(), l1, frozen, l3), l2.weight, scans)
    seen = frozen(hidden).detach()
    changed_by_m0 = _changed_by_a_step(nn.Sequential(nn.Flatten(), l1, l2, l3), l2.weight, scans)
    moved = (frozen(hidden) - seen).abs().max().item()
    return Sharing(m0, m1, l2.weight.numel(), changed_by_m0, changed_by_m1, moved)


def _gradients(
    hidden: torch.Tensor, use: nn.Module, last: nn.Module, weight: torch.Tensor, labels: torch.Tensor
) -> Gradients:
    start = hidden.clone().requires_grad_()
    loss = F.cross_entropy(last(use(start)), labels)
    to_weight, to_input = torch.autograd.grad(loss, (weight, start), allow_unused=True)
    return Gradients(None if to_weight is None else to_weight.norm().item(), to_input.norm().item())


def _changed_by_a_step(model: nn.Module, weight: torch.Tensor, scans: Scans) -> int:
    before = weight.detach().clone().view(torch.int32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05)
    F.cross_entropy(model(scans.images), scans.labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    return int((weight.detach().view(torch.int32) != before).sum())
