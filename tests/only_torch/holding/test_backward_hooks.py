"""Hooks that run in backward, after the call has ended, move nothing that is frozen (L7)."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from only_torch.bits import contents, moved


class Counted(nn.Module):
    """Counts its backward passes, where hooks of its child write them."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("table", torch.zeros(5000))

    def forward(self, x: Tensor) -> Tensor:
        return self.child(x)


def registered(layer: Counted, name: str) -> None:
    def hook(module: nn.Module, *gradients: Any) -> tuple[Tensor, ...]:
        layer.count += 1
        layer.table.add_(1)
        with torch.no_grad():
            module.bias.mul_(2)  # type: ignore[union-attr, operator]
        return tuple(gradient * 2 for gradient in gradients[0])

    getattr(layer.child, name)(hook)


def held_before(mode: Any, name: str) -> tuple[Counted, nn.Module]:
    layer = Counted()
    ft.freeze(layer, mode=mode)
    registered(layer, name)
    return layer, layer.train()


def held_after(mode: Any, name: str) -> tuple[Counted, nn.Module]:
    layer = Counted()
    registered(layer, name)
    ft.freeze(layer, mode=mode)
    return layer, layer.train()


def used_before(mode: Any, name: str) -> tuple[Counted, nn.Module]:
    layer = Counted()
    use = ft.Frozen(layer, mode=mode)
    registered(layer, name)
    return layer, use


def used_after(mode: Any, name: str) -> tuple[Counted, nn.Module]:
    layer = Counted()
    registered(layer, name)
    return layer, ft.Frozen(layer, mode=mode)


@pytest.mark.parametrize("name", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("build", [held_before, held_after, used_before, used_after])
@pytest.mark.parametrize("mode", ["eval", "follow"])
def test_what_they_write_is_undone_and_what_they_return_is_taken(
    build: Callable[[Any, str], tuple[Counted, nn.Module]], mode: str, name: str
) -> None:
    layer, called = build(mode, name)
    before = contents(layer)
    for _ in range(3):
        x = torch.ones(1, 2, requires_grad=True)
        called(x).sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad, 2 * layer.child.weight.sum(0, keepdim=True))
        assert moved(before, layer) == set()


def test_without_a_freeze_they_write() -> None:
    layer = Counted()
    registered(layer, "register_full_backward_hook")
    before = contents(layer)
    layer(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert moved(before, layer) == {"count", "table", "child.bias"}


def test_a_hook_of_a_released_module_writes_again() -> None:
    layer = Counted()
    registered(layer, "register_full_backward_hook")
    ft.freeze(layer).undo()
    layer(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert layer.count.tolist() == [1.0]


class Penalised(Counted):
    """Runs a backward pass of its own, in another thread, as a GPU's backward does."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.child(x)
        if torch.is_grad_enabled():
            inner = x.detach().requires_grad_()
            loss = self.child(inner).sum()
            thread = threading.Thread(target=loss.backward, daemon=True)
            thread.start()
            thread.join(30)
            assert not thread.is_alive()
        return out


@pytest.mark.parametrize("name", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_hook_does_not_wait_for_the_call_that_waits_for_it(name: str) -> None:
    layer = Penalised()
    registered(layer, name)
    ft.freeze(layer, mode="follow")
    before = contents(layer)
    for _ in range(3):
        layer(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert moved(before, layer) == set()
