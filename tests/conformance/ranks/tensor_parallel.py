"""Tensor-parallel layers (DTensor), in two processes."""

from __future__ import annotations

import copy

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import frostline.torch as ft
from conformance.ranks.nets import assert_ranks_agree, moved, refusal, values
from frostline import MovedError
from frostline.errors import UnsupportedError
from frostline.schedules import LISA

X = torch.arange(8.0).reshape(2, 4).sin()
UP = {"up.weight", "up.bias"}
DOWN = {"down.weight", "down.bias"}
HEAD = {"head.weight", "head.bias"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.up, self.down, self.head = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.down(self.up(x).relu()))


def parallel(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    return parallelize_module(model, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Each rank has the same batch."""
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1, foreach=False)


def freezing_and_thawing() -> None:
    for freezes_first in (True, False):
        model = Block()
        if freezes_first:
            handle = ft.freeze(model, "up", "down.bias")
        model = parallel(model)
        if not freezes_first:
            handle = ft.freeze(model, "up", "down.bias")
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        before = values(model)
        with ft.guard(model) as watching:
            train(model, optimizer, 2)
        assert watching.paths == UP | {"down.bias"}
        assert moved(model, before) == HEAD | {"down.weight"}
        handle.undo()
        before = values(model)
        train(model, optimizer, 2)
        assert moved(model, before) == UP | DOWN | HEAD
        assert ft.check(model, optimizer) == []
        assert_ranks_agree(model)


def counts_are_whole_and_a_cost_is_refused() -> None:
    model = parallel(Block())
    totals = ft.report(model).to_dict()["totals"]
    assert (totals["params"], totals["bytes"]) == (86, 344)
    assert refusal(UnsupportedError, lambda: ft.cost(model, X)).split("\n") == [
        "cost(model) cannot be computed: 2 of its modules are tensor-parallel, and a copy would exchange values with "
        "other processes.",
        "Ask before parallelize_module(...): a rank's share is that of the model divided by the ranks.",
    ]


def a_moved_shard_is_found_where_it_is() -> None:
    model = parallel(Block())
    ft.freeze(model, "down")

    def write() -> None:
        with ft.guard(model), torch.no_grad():
            if distributed.get_rank() == 1:
                model.down.weight.to_local()[3, 1] = 0.25

    if distributed.get_rank() == 0:
        write()
        return
    lines = refusal(MovedError, write).split("\n")
    assert lines[0] == "On rank 1 of 2, 1 of 2 frozen tensors moved."
    assert lines[1].startswith("'down.weight' (parameter) moved. First difference in its local tensor: at [3, 1], ")
    assert lines[1].endswith(" -> 0.25; 1 of 16 values.")


def a_frozen_use_computes_in_parallel() -> None:
    plain = Block()
    model = parallel(copy.deepcopy(plain))
    use = ft.Frozen(model.up)
    x = X.clone().requires_grad_()
    out = use(x)
    assert torch.equal(out, model.up(X))
    out.sum().backward()
    assert x.grad is not None
    assert model.up.weight.grad is None
    optimizer = adamw(model)
    train(model, optimizer, 2)
    assert torch.equal(use(X), model.up(X))
    assert torch.equal(ft.frozen_call(model.down, model.up(X)), model.down(model.up(X)))


def a_driver() -> None:
    model = parallel(Block())
    optimizer = adamw(model)
    driver = ft.Driver(LISA(["up", "down", "head"], sampled=1, period=1, seed=1), model, optimizer)
    for _ in range(4):
        before, trainable = values(model), set(ft.trainable(model))
        train(model, optimizer, 1)
        assert moved(model, before) == trainable
        driver.step()
    assert_ranks_agree(model)


CHECKS = {
    2: [
        freezing_and_thawing,
        counts_are_whole_and_a_cost_is_refused,
        a_moved_shard_is_found_where_it_is,
        a_frozen_use_computes_in_parallel,
        a_driver,
    ]
}
