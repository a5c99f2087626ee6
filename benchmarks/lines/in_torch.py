"""Frost lines in PyTorch: how long they take to find, epochs from the cache, and runtimes of the part below."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import frostline.torch as ft
from benchmarks.lines.cuts import CUTS
from benchmarks.lines.outcome import EPOCHS, PLAIN, STEPS, Cached, Found, Runtime, Runtimes
from benchmarks.timing import Ratio
from frostline.errors import LineError
from frostline.torch import FrostLine, frostline


def find(name: str, size: str) -> Found:
    """Draws the line of one model."""
    model, example = CUTS[name].made(size)
    begin = time.process_time()
    try:
        line = frostline(model, *example)
    except LineError as error:
        return Found(CUTS[name].title, time.process_time() - begin, refused=str(error).splitlines()[0])
    seconds = time.process_time() - begin
    crossing = [f"{each.name} {list(each.shape)}" for each in line.boundary]
    samples = sum(x.nbytes // len(x) for x in example)
    return Found(CUTS[name].title, seconds, crossing, sum(each.bytes for each in line.boundary), samples, line.flops)


def compare_with_cache(name: str, size: str, rounds: int) -> Cached:
    """Trains live and from the cache, an epoch each in turn."""
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
        cached_batches = DataLoader(cache.dataset(dataset), **batches)

        def epochs() -> tuple[tuple[float, list[float]], ...]:
            of_live = epoch(live, of_live_optimizer, DataLoader(dataset, **batches))
            return of_live, epoch(lambda x: line.above(*x), of_cache_optimizer, cached_batches)

        of_live_optimizer, of_cache_optimizer = optimizer(live), optimizer(model)
        (_, first), (_, first_cached) = epochs()
        pairs = [epochs() for _ in range(rounds)]
    lives, cacheds = zip(*(((a, b) for (a, _), (b, _) in pairs)), strict=True)
    total = (filled + EPOCHS * median(cacheds)) / (EPOCHS * median(lives))
    fill, ratio, same = filled / median(lives), Ratio.of(cacheds, lives), first == first_cached
    return Cached(CUTS[name].title, 1000 * median(lives) / STEPS, ratio, fill, total, same)


def epoch(
    forward: Callable[[Any], Tensor], optimizer: torch.optim.Optimizer, loader: DataLoader[Any]
) -> tuple[float, list[float]]:
    """Its seconds and losses."""
    begin, losses = time.process_time(), []
    for features, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(features), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return time.process_time() - begin, losses


def compare_runtimes(name: str, size: str, rounds: int) -> Runtimes:
    """Each runtime takes a step in turn, on the same model."""
    model, (example,) = CUTS[name].made(size)
    record = frostline(model, example, runtime="auto").runtime
    running = {trial.name: trial for trial in record.trials if not trial.reason}
    lines = {each: frostline(model, example, runtime=None if each == PLAIN else each) for each in running}
    adamw = optimizer(model)

    def step(line: FrostLine) -> tuple[float, float]:
        begin = time.process_time()
        crossing = line.below(example)
        between = time.process_time()
        adamw.zero_grad()
        output = line.above(*crossing)
        F.cross_entropy(output, output.new_zeros(len(output), dtype=torch.long)).backward()
        adamw.step()
        return between - begin, time.process_time() - begin

    for line in lines.values():
        step(line)
    seconds: dict[str, list[tuple[float, float]]] = {each: [] for each in lines}
    for _ in range(rounds):
        for each, line in lines.items():
            seconds[each].append(step(line))
    below, steps = ({each: [pair[part] for pair in pairs] for each, pairs in seconds.items()} for part in (0, 1))
    found = {
        each: Runtime(Ratio.of(below[each], below[PLAIN]), Ratio.of(steps[each], steps[PLAIN]), trial.error or 0.0)
        for each, trial in running.items()
    }
    left_out = {trial.name: trial.reason for trial in record.trials if trial.reason}
    ms = (1000 * median(below[PLAIN]), 1000 * median(steps[PLAIN]))
    return Runtimes(CUTS[name].title, *ms, found, left_out, record.picked)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)


def samples(example: Tensor) -> TensorDataset:
    """Random ones, enough for an epoch of some steps."""
    shape = (STEPS * len(example), *example.shape[1:])
    is_text = not example.is_floating_point()
    inputs = torch.randint(int(example.max()) + 1, shape) if is_text else torch.randn(shape)
    return TensorDataset(inputs, torch.randint(2, shape[:1]))


def without_dropout(model: nn.Module) -> None:
    """So that losses can be compared; it is a small part of the time."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
