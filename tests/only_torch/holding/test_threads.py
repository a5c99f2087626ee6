"""Calls of two threads that may write the same tensor take turns, and a held call may start threads itself (L7)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from only_torch.bits import bits, contents, moved

X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.5, 1.0]])
LONG = 60.0
"""Seconds after which a thread that waits for an event has failed."""


class Gate(nn.Module):
    """Counts in a buffer, and says when a call is inside and waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(1))
        self.stops: list[tuple[threading.Event, threading.Event]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        if self.stops:
            inside, go_on = self.stops.pop()
            inside.set()
            assert go_on.wait(LONG)
        return self.linear(x) + self.count


def held(layer: nn.Module) -> list[nn.Module]:
    ft.freeze(layer)
    return [layer, layer]


def one_use(layer: nn.Module) -> list[nn.Module]:
    use = ft.Frozen(layer)
    return [use, use]


def two_uses(layer: nn.Module) -> list[nn.Module]:
    return [ft.Frozen(layer), ft.Frozen(layer)]


@pytest.mark.parametrize("made", [held, one_use, two_uses])
def test_a_second_call_waits_for_the_first(made: Callable[[nn.Module], list[nn.Module]]) -> None:
    layer = Gate()
    before = contents(layer)
    first, second = made(layer)
    alone = bits(first(X))
    inside, go_on, started, ended = (threading.Event() for _ in range(4))
    layer.stops = [(inside, go_on)]
    results: list[object] = []

    def call_second() -> None:
        started.set()
        results.append(bits(second(X)))
        ended.set()

    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(lambda: bits(first(X)))
        assert inside.wait(LONG)
        waiting = pool.submit(call_second)
        assert started.wait(LONG)
        assert not ended.wait(0.05)  # without turns it would have ended, with other numbers
        go_on.set()
        assert running.result(LONG) == alone
        waiting.result(LONG)
    assert results == [alone]
    assert moved(before, layer) == set()


class Branches(nn.Module):
    """Runs its children in threads of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Gate(), Gate()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        with ThreadPoolExecutor(2) as pool:
            left, right = pool.submit(self.left, x), pool.submit(self.right, x)
            return left.result(LONG) + right.result(LONG)


@pytest.mark.parametrize("made", [held, one_use])
def test_threads_of_a_held_call_do_not_wait_for_it(made: Callable[[nn.Module], list[nn.Module]]) -> None:
    layer = Branches()
    before = contents(layer)
    module = made(layer)[0]
    assert bits(module(X)) == bits(module(X))
    assert moved(before, layer) == set()


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "batch norm": (lambda: nn.BatchNorm1d(4), lambda: X),
    "embedding with a norm": (lambda: nn.Embedding(9, 4, max_norm=0.5), lambda: torch.arange(9)),
    "own module": (Gate, lambda: X),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", [held, one_use, two_uses])
def test_many_calls_of_many_threads(made: Callable[[nn.Module], list[nn.Module]], kind: str) -> None:
    build, x = KINDS[kind]
    torch.default_generator.manual_seed(0)
    layer = build().train()
    before = contents(layer)
    modules = made(layer)
    expected = bits(modules[0](x()))
    with ThreadPoolExecutor(4) as pool:
        results = set(pool.map(lambda index: bits(modules[index % 2](x())), range(200)))
    assert results == {expected}
    assert moved(before, layer) == set()


def test_a_use_follows_its_layer_after_the_threads_have_ended() -> None:
    layer = nn.BatchNorm1d(4).train()
    use = ft.Frozen(layer)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: use(X), range(100)))
    layer.running_mean.fill_(7.0)
    layer.eval()
    assert use.running_mean.tolist() == [7.0] * 4
    assert bits(use(X)) == bits(layer(X))
