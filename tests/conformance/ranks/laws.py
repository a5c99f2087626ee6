"""The laws L5 to L10 with several processes, for a data-parallel wrapper and for a model in shards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import frostline.torch as ft
from conformance.ranks.nets import (
    EMBED,
    HEAD,
    STATISTICS,
    TRUNK,
    Net,
    adamw,
    assert_ranks_agree,
    averaging,
    batch,
    moved,
    sharding,
    train,
    values,
)
from frostline.torch._tensors import whole

Wrap = Callable[[nn.Module], nn.Module]


def not_listed_still_kept(wrap: Wrap) -> None:
    """L5: an optimizer gets what trains; saving has all, under the names of the bare model."""
    plain = values(Net())
    model = Net()
    wrapped = wrap(model)
    ft.freeze(wrapped, "trunk")
    assert set(ft.trainable(wrapped)) == HEAD | EMBED
    assert set(ft.frozen(wrapped)) == TRUNK
    assert values(wrapped) == plain
    inside = Net()
    inside.trunk = ft.Frozen(inside.trunk)
    wrapped = wrap(inside)
    assert set(ft.trainable(wrapped)) == HEAD | EMBED
    assert values(wrapped) == plain


class Critic(nn.Module):
    """A layer that trains where it is called, and is constant where it is a frozen use."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(ft.frozen_call(self.layer, self.layer(x)))


class CriticByHand(Critic):
    """The same with copies of the weights that need no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (whole(tensor).detach() for tensor in (self.layer.weight, self.layer.bias))
        return self.head(nn.functional.linear(self.layer(x), weight, bias))


def live(wrap: Wrap) -> None:
    """L6: a frozen use sees how the layer trains, and its gradient is that of the other uses alone."""
    by_use, by_hand = Critic(), CriticByHand()
    for model in (by_use, by_hand):
        wrapped = wrap(model)
        train(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9), range(3))
    assert values(by_use) == values(by_hand)
    assert moved(by_use, values(Critic())) == {"layer.weight", "layer.bias", "head.weight", "head.bias"}
    assert_ranks_agree(by_use)


def still(wrap: Wrap) -> None:
    """L7: training around a frozen part moves nothing in it, and its dropout is off."""
    wrapped = wrap(Net())
    ft.freeze(wrapped, "trunk")
    before = values(wrapped)
    with ft.guard(wrapped) as watching:
        train(wrapped, adamw(wrapped), range(3))
        with torch.no_grad():
            assert torch.equal(wrapped(batch(1)), wrapped(batch(1)))
    assert watching.paths == TRUNK | STATISTICS
    assert moved(wrapped, before) == HEAD | EMBED
    assert_ranks_agree(wrapped)


def without_freezing_everything_moves(wrap: Wrap) -> None:
    """The negative control of L7."""
    wrapped = wrap(Net())
    before = values(wrapped)
    train(wrapped, adamw(wrapped), range(3))
    assert moved(wrapped, before) == HEAD | EMBED | TRUNK | STATISTICS
    assert_ranks_agree(wrapped, but=STATISTICS)


def blind_training_routine(wrap: Wrap) -> None:
    """L8: an optimizer that has all parameters, with moments and gradients from before, moves no frozen one."""
    wrapped = wrap(Net())
    optimizer = adamw(wrapped)
    train(wrapped, optimizer, range(2))
    wrapped(batch(2)).square().sum().backward()  # a gradient that was never used
    ft.freeze(wrapped, "trunk", "embed.weight")
    before = values(wrapped)
    train(wrapped, optimizer, range(3, 6))
    assert moved(wrapped, before) == HEAD | {"embed.bias"}
    assert_ranks_agree(wrapped, but=STATISTICS)


def nests(wrap: Wrap) -> None:
    """L9: freezes by different owners are undone in any order."""
    wrapped = wrap(Net())
    optimizer = adamw(wrapped)
    ft.bind(optimizer, wrapped)
    one, two = ft.freeze(wrapped, "trunk", "embed"), ft.freeze(wrapped, "trunk", "head.bias")
    steps = iter(range(100))
    for handle, expected in (
        (None, {"head.weight"}),
        (one, HEAD - {"head.bias"} | EMBED),
        (two, HEAD | EMBED | TRUNK | STATISTICS),
    ):
        if handle is not None:
            handle.undo()
        before = values(wrapped)
        train(wrapped, optimizer, [next(steps), next(steps)])
        assert moved(wrapped, before) == expected
        assert_ranks_agree(wrapped, but=STATISTICS)


def reversible(wrap: Wrap) -> None:
    """L10: after a thaw there are the same objects, flags and modes, and it trains as before."""
    wrapped, other = wrap(Net()), wrap(Net())
    before = [(id(p), p.requires_grad) for p in wrapped.parameters()]
    modes = [module.training for module in wrapped.modules()]
    with ft.freeze(wrapped, "trunk"):
        train(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.0), range(2))
    assert [(id(p), p.requires_grad) for p in wrapped.parameters()] == before
    assert [module.training for module in wrapped.modules()] == modes
    for model in (wrapped, other):
        torch.manual_seed(5)
        train(model, adamw(model), range(3))
    assert values(wrapped) == values(other)
    assert_ranks_agree(wrapped, but=STATISTICS)


LAWS = {
    "l5": not_listed_still_kept,
    "l6": live,
    "l7": still,
    "l7_negative_control": without_freezing_everything_moves,
    "l8": blind_training_routine,
    "l9": nests,
    "l10": reversible,
}
WRAPS: dict[str, Wrap] = {"ddp": averaging, "fsdp2": sharding}


def _check(name: str, law: Callable[[Wrap], Any], wrap: Wrap) -> Callable[[], Any]:
    def check() -> None:
        law(wrap)

    check.__name__ = name
    return check


_ALL = [_check(f"{name}_{kind}", law, wrap) for kind, wrap in WRAPS.items() for name, law in LAWS.items()]
CHECKS = {2: _ALL, 4: _ALL}
