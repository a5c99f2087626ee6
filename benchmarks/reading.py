"""What is done once: reading, freezing and watching a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

from torch import nn

import frostline.torch as ft
from benchmarks.resolve import PATTERNS
from benchmarks.ways import made

STEPS_OF_AN_EPOCH = 100


@dataclass(frozen=True)
class Once:
    """Medians of what is done once.

    Attributes:
        milliseconds: what -> how long, on a model of 20,000 parameters.
        guard_gigabytes: bytes that a guard reads in a second.
        guard_seconds: entering and leaving a guard around the ResNet-50.
        temporary_ms: ``with freeze(model)`` around nothing, on the ResNet-50.
    """

    milliseconds: dict[str, float]
    guard_gigabytes: float
    guard_seconds: float
    temporary_ms: float

    def share(self, step_ms: float) -> float:
        """The guard's part of an epoch of 100 steps."""
        return self.guard_seconds / (self.guard_seconds + STEPS_OF_AN_EPOCH * step_ms / 1000)


class Layer(nn.Module):
    """12 parameters in 6 modules, two levels deep."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("q", "k", "v")})
        self.mlp = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("up", "down")})
        self.norm1 = nn.LayerNorm(2)


class Stage(nn.Module):
    """416 layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(416))


class Large(nn.Module):
    """The model of `benchmarks.resolve` in PyTorch: 19,972 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage() for _ in range(4))
        self.embed, self.head = nn.Linear(2, 2), nn.Linear(2, 2)


def took(run: Callable[[], object], runs: int) -> float:
    """Median seconds."""
    seconds = []
    for _ in range(runs):
        start = process_time()
        run()
        seconds.append(process_time() - start)
    return median(seconds)


def freeze_and_undo(model: nn.Module) -> tuple[float, float]:
    """Seconds of each."""
    start = process_time()
    handle = ft.freeze(model, *PATTERNS)
    middle = process_time()
    handle.undo()
    return middle - start, process_time() - middle


def large(runs: int) -> dict[str, float]:
    """Milliseconds of the verbs on a model of 20,000 parameters."""
    model = Large()
    pairs = [freeze_and_undo(model) for _ in range(runs)]
    ft.freeze(model, *PATTERNS)
    plan = ft.plan(model)
    seconds = {
        "freeze, 20 patterns": median(freezing for freezing, _ in pairs),
        "handle.undo": median(undoing for _, undoing in pairs),
        "plan": took(lambda: ft.plan(model), runs),
        "follow, nothing to change": took(lambda: ft.follow(model, plan), runs),
        "trainable": took(lambda: ft.trainable(model), runs),
        "Frozen": took(lambda: ft.Frozen(model), runs),
    }
    return {name: 1000 * value for name, value in seconds.items()}


def guarding(runs: int) -> tuple[int, float]:
    """Bytes watched in a ResNet-50, and the seconds that entering and leaving a guard take."""
    model, _ = made("resnet")
    ft.freeze(model)
    watched = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])

    def watch() -> None:
        with ft.guard(model):
            pass

    return watched, took(watch, runs)


def temporary(runs: int) -> float:
    """Milliseconds of a freezing that is undone at once, on a ResNet-50 (161 parameters)."""
    model, _ = made("resnet")
    return 1000 * took(lambda: ft.freeze(model).undo(), runs)


def measure(runs: int) -> Once:
    """All of it."""
    watched, seconds = guarding(runs)
    return Once(large(runs), 2 * watched / seconds / 1e9, seconds, temporary(3 * runs))
