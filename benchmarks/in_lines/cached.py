"""Epochs from a feature cache beside live ones.

Run as ``python -m benchmarks.in_lines.cached NAME SIZE ROUNDS`` in a process of its own; writes JSON.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import frostline.torch as ft
from benchmarks.in_lines.cuts import CUTS
from benchmarks.in_lines.outcome import EPOCHS, STEPS, Cached
from benchmarks.ratios import Ratio
from frostline.torch import frostline


@dataclass
class Trainee:
    """A model that trains on what a loader gives."""

    forward: Callable[[Any], Tensor]
    optimizer: torch.optim.Optimizer
    loader: DataLoader[Any]

    def epoch(self) -> tuple[float, list[float]]:
        """Its seconds and losses."""
        begin, losses = time.process_time(), []
        for features, labels in self.loader:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.forward(features), labels)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return time.process_time() - begin, losses


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)


def samples(example: Tensor) -> TensorDataset:
    """Random ones, enough for an epoch of some steps."""
    shape = (STEPS * len(example), *example.shape[1:])
    is_text = not example.is_floating_point()
    inputs = torch.randint(int(example.max()) + 1, shape) if is_text else torch.randn(shape)
    return TensorDataset(inputs, torch.randint(2, shape[:1]))


def compare(name: str, size: str, rounds: int) -> Cached:
    """Trains both ways, an epoch each in turn."""
    model, (example,) = CUTS[name].made(size)
    without_dropout(model)
    live, dataset = copy.deepcopy(model), samples(example)
    line = frostline(model, example)
    with tempfile.TemporaryDirectory() as folder:
        cache = ft.FeatureCache(folder, line)
        begin = time.process_time()
        cache.fill(dataset, batch_size=len(example), progress=False)
        filled = time.process_time() - begin
        batches = {"batch_size": len(example)}
        of_live = Trainee(live, optimizer(live), DataLoader(dataset, **batches))
        of_cache = Trainee(lambda x: line.above(*x), optimizer(model), DataLoader(cache.dataset(dataset), **batches))
        first = [trainee.epoch()[1] for trainee in (of_live, of_cache)]
        seconds = [(of_live.epoch()[0], of_cache.epoch()[0]) for _ in range(rounds)]
    lives, cacheds = zip(*seconds, strict=True)
    total = (filled + EPOCHS * median(cacheds)) / (EPOCHS * median(lives))
    step_ms = 1000 * median(lives) / STEPS
    same = first[0] == first[1]
    return Cached(CUTS[name].title, step_ms, Ratio.of(cacheds, lives), filled / median(lives), total, same)


def without_dropout(model: nn.Module) -> None:
    """So that losses can be compared; it is a small part of the time."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(asdict(compare(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
