"""One model, frozen in every way: time of a training step as ratios, bytes saved, peak memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import frostline.torch as ft
from benchmarks.freezing.case import AGAIN, BASE, OURS, Case
from benchmarks.freezing.models import MODELS, made
from benchmarks.memory import allocations, peak_of, saved_bytes
from benchmarks.timing import Ratio, interleaved

ROUNDS_OF_A_BUILD = 15


def by_hand(model: nn.Sequential) -> Iterable[nn.Parameter]:
    """As everybody writes it."""
    model.middle.requires_grad_(False)
    model.middle.eval()
    return [p for p in model.parameters() if p.requires_grad]


def frozen_use(model: nn.Sequential) -> Iterable[nn.Parameter]:
    """``Frozen(layer)`` in place of the layer."""
    model.middle = ft.Frozen(model.middle)
    return ft.trainable(model).values()


def frozen_in_place(model: nn.Sequential) -> Iterable[nn.Parameter]:
    """``freeze(model, "middle")``."""
    ft.freeze(model, "middle")
    return ft.trainable(model).values()


WAYS = {BASE: by_hand, "Frozen": frozen_use, "freeze": frozen_in_place}


@dataclass
class Trainee:
    """A model that is frozen in one way, with all that a training step needs."""

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
        """The forward pass alone."""
        out = self.call(self.batch)
        return F.cross_entropy(out.flatten(0, -2), torch.zeros(out.numel() // out.shape[-1], dtype=torch.long))


def trainee(name: str, way: str, *, compiled: bool, like: Trainee | None) -> Trainee:
    """A model, frozen in one way, on the bytes of `like`: where they lie in memory alone can change a step by 10 %."""
    model, batch = made(name)
    if like is not None:
        for tensors in ("parameters", "buffers"):
            for mine, theirs in zip(
                getattr(model.middle, tensors)(), getattr(like.model.middle, tensors)(), strict=True
            ):
                mine.data = theirs.data
    trained = list(WAYS[way](model))
    call = torch.compile(model) if compiled else model
    return Trainee(model, batch, call, torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.1))


def measure(name: str, rounds: int, compiled: bool) -> Case:  # noqa: FBT001
    """Measures one model; an eager one is built several times, because of where tensors lie in memory."""
    ways, seconds = list(WAYS), defaultdict[str, list[float]](list)
    builds = 1 if compiled else max(1, rounds // ROUNDS_OF_A_BUILD)
    for build in range(builds):
        trained: dict[str, Trainee] = {}
        for way in ways[build:] + ways[:build]:
            trained[way] = trainee(name, way, compiled=compiled, like=next(iter(trained.values()), None))
        for one in trained.values():
            for _ in range(3):
                one.step()
        losses = {way: one.losses for way, one in trained.items()}
        if any(values != losses[BASE] for values in losses.values()):
            raise RuntimeError(f"the ways do not compute the same, so that times compare nothing: {losses}")
        steps: dict[str, Any] = {way: one.step for way, one in trained.items()}
        for way, more in interleaved({**steps, AGAIN: steps[BASE]}, rounds // builds).items():
            seconds[way] += more
    return Case(
        title=f"{MODELS[name][0]}, {'compiled' if compiled else 'eager'}",
        step_ms=1000 * median(seconds[BASE]),
        times={way: Ratio.of(seconds[way], seconds[BASE]) for way in (AGAIN, *OURS)},
        saved={way: saved_bytes(trained[way].model, trained[way].loss) for way in ways},
        peak={way: peak_with_freezing(name, way, trained[way]) for way in ways},
    )


def peak_with_freezing(name: str, way: str, one: Trainee) -> int:
    """Bytes at the peak of freezing and of a step after it."""
    one.optimizer.zero_grad()
    model, _ = made(name)
    with allocations() as freezing:
        kept = WAYS[way](model)
    del kept
    return max(freezing.peak, freezing.held + peak_of(one.step))
