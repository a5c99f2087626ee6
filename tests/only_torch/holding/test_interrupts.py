"""An exception at any line of the holding code leaves nothing behind (L7, L10)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline.torch._holding import backup
from frostline.torch._holding.claims import ledger_of
from frostline.torch._holding.classes import HOLD
from only_torch.bits import contents, moved

X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 4.0, -1.5]])
OURS = tuple(str(Path(ft.__file__).parent / name) for name in ("_holding", "_uses", "_freezing"))


class Interrupt(BaseException):
    """Comes between two lines, as Ctrl-C does."""


def interrupted(call: Callable[[], Any], at: int) -> bool:
    """Runs a call with an interrupt before its line number `at`, and returns whether it ended before that."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if event == "call":
            return trace if frame.f_code.co_filename.startswith(OURS) else None
        if event == "line":
            lines += 1
            if lines == at:
                raise Interrupt
        return trace

    earlier = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return False
    finally:
        sys.settrace(earlier)
    return True


class Writing(nn.Module):
    """Writes small and large buffers, its child's statistics and its child's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("table", torch.zeros(5000))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.table += 1
        self.norm.running_mean = self.norm.running_mean + 1
        self.linear.bias.data.mul_(0.5)
        return self.norm(self.linear(x))


def held() -> tuple[nn.Module, nn.Module]:
    layer = Writing()
    ft.freeze(layer, mode="follow")
    return layer, layer.train()


def used() -> tuple[nn.Module, nn.Module]:
    layer = Writing()
    return layer, ft.Frozen(layer)


def settled(made: Callable[[], tuple[nn.Module, nn.Module]]) -> Callable[[], tuple[nn.Module, nn.Module]]:
    def build() -> tuple[nn.Module, nn.Module]:
        layer, module = made()
        for _ in range(2):
            module(X)
        return layer, module

    return build


@pytest.mark.parametrize(
    ("build", "stride"),
    [(held, 7), (settled(held), 1), (used, 7), (settled(used), 1)],
    ids=["held, first call", "held", "used, first call", "used"],
)
def test_a_call(build: Callable[[], tuple[nn.Module, nn.Module]], stride: int) -> None:
    at, has_ended = 1, False
    while not has_ended:
        layer, module = build()
        before, objects = contents(layer), [id(t) for t in (*layer.parameters(), *layer.buffers())]
        has_ended = interrupted(lambda module=module: module(X), at)
        assert moved(before, layer) == set(), at
        assert [id(t) for t in (*layer.parameters(), *layer.buffers())] == objects, at
        assert (backup._open, backup._thread.call) == ({}, None), at
        module(X)
        assert moved(before, layer) == set(), at
        at += stride
    assert at > 100


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5)), nn.Linear(3, 1))
    model(X).sum().backward()
    return model


def described(model: nn.Module) -> list[object]:
    claims = {
        (path, local): [stack.before, *((claim.frozen, claim.owner, claim.mode) for claim in stack.claims)]
        for path, module in model.named_modules()
        for local, stack in ledger_of(module).items()
    }
    tensors = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    modules = [(type(module), module.training, module.__dict__.get(HOLD)) for module in model.modules()]
    return [claims, tensors, modules]


def frozen_net() -> nn.Sequential:
    model = net()
    ft.freeze(model, "[:2]")
    return model


def followed_net() -> nn.Sequential:
    model = frozen_net()
    ft.follow(model, ft.plan(model).freeze({"2.weight"}))
    return model


def freeze(model: nn.Module) -> object:
    return ft.freeze(model, "[:2]", mode="follow")


def thaw(model: nn.Module) -> object:
    return ft.thaw(model, "[1:]")


PLAN = ft.plan(net()).freeze({"2.weight", "2.bias", "1.0.bias"})


def follow(model: nn.Module) -> object:
    return ft.follow(model, PLAN)


@pytest.mark.parametrize("verb", [freeze, thaw, follow])
@pytest.mark.parametrize("build", [net, frozen_net, followed_net])
def test_a_verb_is_done_whole_or_not_at_all(
    build: Callable[[], nn.Sequential], verb: Callable[[nn.Module], object]
) -> None:
    done = build()
    before = described(done)
    verb(done)
    ends = [before, described(done)]
    at, has_ended = 1, False
    while not has_ended:
        model = build()
        has_ended = interrupted(lambda model=model: verb(model), at)
        assert described(model) in ends, at
        verb(model)
        assert model.train()(X).shape == (2, 1)
        at += 31
    assert at > 500


def test_undoing_is_whole_or_not_at_all() -> None:
    frozen = net()
    ft.freeze(frozen, "[:2]")
    ends = [described(net()), described(frozen)]
    at, has_ended = 1, False
    while not has_ended:
        model = net()
        handle = ft.freeze(model, "[:2]")
        has_ended = interrupted(handle.undo, at)
        assert (described(model)[0], described(model)[2]) in [(end[0], end[2]) for end in ends], at
        at += 11
    assert at > 100
