"""A training step in PyTorch, as most benchmarks take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Trainee:
    """A model that is frozen in one way, with all that a training step needs.

    Attributes:
        call: the model, or its compiled form.
    """

    model: Any
    call: Callable[..., torch.Tensor]
    batch: tuple[torch.Tensor, ...]
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
        """The loss of a forward pass."""
        out = self.call(*self.batch)
        return F.cross_entropy(out.flatten(0, -2), torch.zeros(out.numel() // out.shape[-1], dtype=torch.long))


def share(source: nn.Module, target: nn.Module, *kinds: str) -> None:
    """Lets `target` hold the bytes of `source`: where they lie in memory alone can change a step by 10 %."""
    for kind in kinds:
        for mine, theirs in zip(getattr(target, kind)(), getattr(source, kind)(), strict=True):
            mine.data = theirs.data
