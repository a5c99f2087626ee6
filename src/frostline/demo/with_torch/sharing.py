"""One layer, trained by one model and constant in another, in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import frostline.torch as ft
from frostline.demo.scans import Scans
from frostline.demo.sharing import Gradients, Sharing
from frostline.demo.with_torch.network import seeded


def share(scans: Scans) -> Sharing:
    """Builds both models, takes a step of each on some scans, and looks at the layer.

    Example:
        >>> from frostline.demo.scans import NEW, one_of_each
        >>> shared = share(one_of_each(NEW))
        >>> shared.m1.weight, shared.changed_by_m1, shared.changed_by_m0
        (None, 0, 1024)
    """
    with seeded(0):
        l1, l2, l3 = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 5)
    frozen = ft.Frozen(l2)
    images, labels = torch.from_numpy(scans.images).flatten(1), torch.from_numpy(scans.labels)
    hidden = l1(images).detach()
    m0, m1 = (_gradients(hidden, use, l3, l2.weight, labels) for use in (l2, frozen))
    changed_by_m1 = _changed_by_a_step(nn.Sequential(l1, frozen, l3), l2.weight, images, labels)
    seen = frozen(hidden).detach()
    changed_by_m0 = _changed_by_a_step(nn.Sequential(l1, l2, l3), l2.weight, images, labels)
    moved = (frozen(hidden) - seen).abs().max().item()
    return Sharing(m0, m1, l2.weight.numel(), changed_by_m0, changed_by_m1, moved)


def _gradients(
    hidden: torch.Tensor, use: nn.Module, last: nn.Module, weight: torch.Tensor, labels: torch.Tensor
) -> Gradients:
    start = hidden.clone().requires_grad_()
    loss = F.cross_entropy(last(use(start)), labels)
    to_weight, to_input = torch.autograd.grad(loss, (weight, start), allow_unused=True)
    return Gradients(None if to_weight is None else to_weight.norm().item(), to_input.norm().item())


def _changed_by_a_step(model: nn.Module, weight: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> int:
    before = weight.detach().clone().view(torch.int32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05)
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    return int((weight.detach().view(torch.int32) != before).sum())
