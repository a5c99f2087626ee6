"""Activation checkpointing goes on in frozen blocks, with dropout off (L7, L11)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import frostline.torch as ft
from only_torch.bits import bits
from only_torch.foreign_layers import Block, BlockAround

each_block = pytest.mark.parametrize("block", [Block, BlockAround])


def built(block: type[nn.Module]) -> nn.Sequential:
    torch.default_generator.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 4), *[block() for _ in range(3)], nn.Linear(4, 1))


def saved(model: nn.Module) -> int:
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
        model(torch.ones(8, 4))
    return sum(sizes)


def by_hand(model: nn.Module) -> None:
    model[1:4].requires_grad_(False)


def frozen(model: nn.Module) -> None:
    ft.freeze(model, "[1:4]")


def used(model: nn.Module) -> None:
    for index in (1, 2, 3):
        model[index] = ft.Frozen(model[index])


def bytes_of(freeze: Callable[[nn.Module], None], block: type[nn.Module]) -> int:
    model = built(block)
    freeze(model)
    return saved(model.train())


@each_block
@pytest.mark.parametrize("freeze", [frozen, used])
def test_it_saves_no_more_than_by_hand(freeze: Callable[[nn.Module], None], block: type[nn.Module]) -> None:
    assert bytes_of(freeze, block) <= bytes_of(by_hand, block)


@each_block
@pytest.mark.parametrize("freeze", [frozen, used])
def test_dropout_is_off_and_gradients_are_those_without_it(
    freeze: Callable[[nn.Module], None], block: type[nn.Module]
) -> None:
    model, plain = built(block), built(block).eval()
    freeze(model)
    model.train()
    results = [bits(model(torch.ones(8, 4))) for _ in range(2)]
    assert results == [bits(plain(torch.ones(8, 4)))] * 2
    for each in (model, plain):
        each(torch.ones(8, 4)).sum().backward()
    assert bits(model[0].weight.grad) == bits(plain[0].weight.grad)
    assert not any(module.training for module in model[1:4].modules() if not isinstance(module, nn.Sequential))


@each_block
def test_it_is_off_in_evaluation_and_without_the_flag(block: type[nn.Module]) -> None:
    model = built(block)
    frozen(model)
    on = saved(model.train())
    assert saved(model.eval()) > on
    model.train()
    for index in (1, 2, 3):
        model[index].gradient_checkpointing = False
    assert saved(model) > on


@each_block
def test_undone_it_is_theirs_again(block: type[nn.Module]) -> None:
    model = built(block)
    ft.freeze(model, "[1:4]").undo()
    assert saved(model.train()) == saved(built(block).train())
