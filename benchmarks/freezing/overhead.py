"""What a frozen call costs by itself: microseconds for each call, parameter, module and buffer."""

from __future__ import annotations

import gc
from collections.abc import Callable
from statistics import median
from time import process_time

import torch
from torch import nn

import frostline.torch as ft

MANY, PAIRS = 1000, 7
Way = Callable[[nn.Module], nn.Module]


class Empty(nn.Module):
    """Holds things and computes nothing, so that a call of it is all overhead."""

    def __init__(self, *, parameters: int = 1, modules: int = 0, has_buffer: bool = False) -> None:
        super().__init__()
        for number in range(parameters):
            self.register_parameter(f"p{number}", nn.Parameter(torch.zeros(1)))
        for number in range(modules):
            self.add_module(f"m{number}", nn.Identity())
        if has_buffer:
            self.register_buffer("b", torch.zeros(1024))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def by_hand(module: nn.Module) -> nn.Module:
    """In evaluation mode, without gradients."""
    return module.eval().requires_grad_(False)


def in_place(module: nn.Module) -> nn.Module:
    """``freeze(module)``."""
    ft.freeze(module)
    return module


def overhead(way: Way) -> tuple[float, float, float, float]:
    """Microseconds beyond a call by hand: of a call, and for each further parameter, module, and buffer of 4 KiB."""
    call = added(Empty, way, calls=500)
    return (
        call,
        (added(lambda: Empty(parameters=MANY), way, calls=20) - call) / MANY,
        (added(lambda: Empty(modules=MANY), way, calls=20) - call) / MANY,
        added(lambda: Empty(has_buffer=True), way, calls=500) - call,
    )


def added(make: Callable[[], nn.Module], way: Way, *, calls: int) -> float:
    """Microseconds a call beyond those by hand: the median of pairs."""
    hand, other, x = by_hand(make()), way(make()), torch.zeros(1)
    pairs = [(spent(other, x, calls), spent(hand, x, calls)) for _ in range(PAIRS)]
    return 1e6 * median(a - b for a, b in pairs) / calls


def spent(module: nn.Module, x: torch.Tensor, calls: int) -> float:
    """Seconds of `calls` calls."""
    gc.collect()
    gc.disable()
    start = process_time()
    for _ in range(calls):
        module(x)
    seconds = process_time() - start
    gc.enable()
    return seconds


def measure() -> dict[str, tuple[float, float, float, float]]:
    """Both ways."""
    return {"Frozen": overhead(ft.Frozen), "freeze": overhead(in_place)}
