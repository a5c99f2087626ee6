"""A model with a part frozen in one way, and its training step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.in_lean.parts import Part
from benchmarks.in_lean.ways import WAYS
from benchmarks.memory import allocations, peak_of


@dataclass
class Trainee:
    """What a training step needs."""

    model: nn.Module
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
        """Of the forward pass alone."""
        out = self.model(*self.batch)
        return F.cross_entropy(out.flatten(0, -2), torch.zeros(out.numel() // out.shape[-1], dtype=torch.long))

    def saved(self) -> int:
        """Bytes that a forward pass leaves to the backward pass.

        Taken from the allocator, so that it is the same count for a layer that keeps its tensors by itself.
        """
        self.optimizer.zero_grad()
        with allocations() as ledger:
            loss = self.loss()
        del loss
        return ledger.held

    def peak(self) -> int:
        """The most bytes that a step holds at a time."""
        self.optimizer.zero_grad()
        return peak_of(self.step)


def trainee(part: Part, way: str, *, small: bool, like: Trainee | None) -> Trainee:
    """The same model every time; its tensors lie where `like`'s do, since that alone can change a step by 10 %."""
    torch.manual_seed(0)
    model, batch = part.made(small=small)
    if like is not None:
        share(like.model, model)
        batch = like.batch
    model = WAYS[way](model.train(), part)
    trained = [p for p in model.parameters() if p.requires_grad]
    return Trainee(model, batch, torch.optim.AdamW(trained, lr=0.0, weight_decay=0.1))


def share(source: nn.Module, target: nn.Module) -> None:
    """Lets `target`'s parameters hold the bytes of `source`'s; with a learning rate of 0 they stay what they are."""
    for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
        mine.data = theirs.data
