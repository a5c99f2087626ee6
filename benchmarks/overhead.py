"""What a frozen call costs by itself: microseconds for each call, parameter, module and buffer."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

import torch
from torch import nn

import frostline.torch as ft

MANY, PAIRS = 1000, 7
Way = Callable[[nn.Module], nn.Module]


class Shelf(nn.Module):
    """Holds things and computes nothing, so that a call of it is all overhead."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def parameters() -> nn.Module:
    """One module with many parameters."""
    shelf = Shelf()
    for i in range(MANY):
        shelf.register_parameter(f"p{i}", nn.Parameter(torch.zeros(1)))
    return shelf


def modules() -> nn.Module:
    """Many modules without parameters."""
    shelf = Shelf()
    for i in range(MANY):
        shelf.add_module(f"m{i}", nn.Identity())
    shelf.register_parameter("p", nn.Parameter(torch.zeros(1)))
    return shelf


def one() -> nn.Module:
    """One module with one parameter."""
    shelf = Shelf()
    shelf.register_parameter("p", nn.Parameter(torch.zeros(1)))
    return shelf


def buffer() -> nn.Module:
    """One module, not PyTorch's own, with a parameter and a buffer of 4 KiB."""
    shelf = one()
    shelf.register_buffer("b", torch.zeros(1024))
    return shelf


def by_hand(module: nn.Module) -> nn.Module:
    """In evaluation mode, without gradients."""
    return module.eval().requires_grad_(False)


def in_place(module: nn.Module) -> nn.Module:
    """``freeze(module)``."""
    ft.freeze(module)
    return module


@dataclass(frozen=True)
class Overhead:
    """Microseconds that one way of freezing adds to a call.

    Attributes:
        call: of a module with one parameter.
        parameter: for each further parameter.
        module: for each further module.
        buffer: for a buffer of 4 KiB of a module that is not PyTorch's own.
    """

    call: float
    parameter: float
    module: float
    buffer: float


def overhead(way: Way) -> Overhead:
    """What `way` adds to a call."""
    call = added(one, way, calls=500)
    return Overhead(
        call=call,
        parameter=(added(parameters, way, calls=20) - call) / MANY,
        module=(added(modules, way, calls=20) - call) / MANY,
        buffer=added(buffer, way, calls=500) - call,
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


def measure() -> dict[str, Overhead]:
    """Both ways."""
    return {"Frozen": overhead(ft.Frozen), "freeze": overhead(in_place)}
