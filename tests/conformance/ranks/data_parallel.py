"""Freezing and thawing inside of a data-parallel wrapper, in two processes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

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
    refusal,
    train,
    values,
)
from frostline import MovedError
from frostline.errors import RankError, WrappedError
from frostline.schedules import LISA, BAdam, LinearProbe, Phase, Plateau, Schedule, ULMFiT

BLOCKS = ["embed", "trunk", "head"]


def a_change_that_would_be_ignored_is_refused_on_every_rank() -> None:
    model = Net()
    handle = ft.freeze(model, "trunk")
    wrapped = DistributedDataParallel(model)
    before = values(model)
    changes: list[Callable[[], Any]] = [
        lambda: ft.thaw(model, "trunk"),
        lambda: ft.thaw(wrapped, "trunk"),
        handle.undo,
        lambda: handle.__exit__(None, None, None),
        lambda: ft.follow(model, ft.plan(model).thaw(TRUNK)),
        lambda: ft.freeze(model, "head"),
        lambda: ft.Driver(LinearProbe(["head"], steps=1), model, adamw(model)),
    ]
    for change in changes:
        refusal(WrappedError, change)
    assert set(ft.trainable(model)) == HEAD | EMBED
    assert ft.check(wrapped) == []
    train(wrapped, adamw(model), range(3))
    assert moved(model, before) == HEAD | EMBED
    assert_ranks_agree(model)


def without_a_word_the_ranks_drift() -> None:
    """The negative control: what happens behind the back of a wrapper that does not follow."""
    model = Net()
    ft.freeze(model, "trunk")
    wrapped = DistributedDataParallel(model)
    model.trunk.requires_grad_(True)
    assert "wrapped-then-thawed" in [finding.kind for finding in ft.check(model)]
    train(wrapped, adamw(model), range(2))
    mine = values(model)
    said: list[dict[str, bytes]] = [{}, {}]
    distributed.all_gather_object(said, mine)
    assert {name for name in mine if said[0][name] != said[1][name]} >= TRUNK
    # From here on it follows, and begins with what rank 0 has.
    assert ft.rewrap(wrapped) is wrapped
    assert_ranks_agree(model)
    train(wrapped, adamw(model), range(2))
    assert_ranks_agree(model, but=STATISTICS)
    assert [f.kind for f in ft.check(wrapped) if f.kind.startswith("wrapped")] == []


def every_way_to_change_is_followed() -> None:
    model = Net()
    wrapped = averaging(model)
    optimizer = adamw(model)
    ft.bind(optimizer, model)

    def phase(expected: set[str]) -> None:
        before = values(model)
        train(wrapped, optimizer, range(2))
        assert moved(model, before) == expected
        assert_ranks_agree(model, but=STATISTICS)

    handle = ft.freeze(model, "trunk")
    phase(HEAD | EMBED)
    with ft.freeze(wrapped, "embed"):
        phase(HEAD)
    phase(HEAD | EMBED)
    handle.undo()
    phase(HEAD | EMBED | TRUNK | STATISTICS)
    ft.follow(model, ft.plan(model).freeze(HEAD))
    phase(EMBED | TRUNK | STATISTICS)
    ft.thaw(wrapped, "head")
    with ft.freeze(model):  # nothing trains, so nothing is to be averaged
        wrapped(batch(3))
    phase(HEAD | EMBED | TRUNK | STATISTICS)
    model.embed.requires_grad_(False)  # by hand
    phase(HEAD | TRUNK | STATISTICS)


def gradients_are_those_of_a_new_wrapper() -> None:
    for options in ({}, {"gradient_as_bucket_view": True}, {"static_graph": True}, {"find_unused_parameters": True}):
        model = Net()
        wrapped = ft.rewrap(DistributedDataParallel(model, **options))
        wrapped(batch(1)).square().sum().backward()
        ft.freeze(model, "trunk")
        model.zero_grad()
        other = DistributedDataParallel(copy.deepcopy(model))
        for each in (wrapped, other):
            each(batch(2)).square().sum().backward()
        pairs = zip(model.parameters(), other.module.parameters(), strict=True)
        for mine, fresh in pairs:
            assert (mine.grad is None) == (fresh.grad is None)
            assert mine.grad is None or torch.equal(mine.grad, fresh.grad), options
        assert {name for name, p in model.named_parameters() if p.grad is not None} == HEAD | EMBED


def a_hook_of_communication_goes_on() -> None:
    calls = []

    def halved(state, bucket):  # type: ignore[no-untyped-def] # PyTorch refuses annotations that are texts
        calls.append(state)
        work = distributed.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda future: future.value()[0] / 2)

    model = Net()
    wrapped = DistributedDataParallel(model)
    wrapped.register_comm_hook("state", halved)
    ft.rewrap(wrapped)
    train(wrapped, adamw(model), [0])
    assert calls == ["state"]
    ft.freeze(model, "trunk")
    train(wrapped, adamw(model), [1])
    assert calls == ["state", "state"]
    assert_ranks_agree(model)


def a_change_between_forward_and_backward() -> None:
    """The wrapper that made the call averages its gradients; the next call is made with the change."""
    model = Net()
    wrapped = averaging(model)
    optimizer = adamw(model)
    loss = wrapped(batch(1)).square().sum()
    ft.freeze(model, "embed")
    loss.backward()
    assert model.embed.weight.grad is None
    optimizer.step()
    assert_ranks_agree(model, but=STATISTICS)
    train(wrapped, optimizer, range(2))
    assert_ranks_agree(model, but=STATISTICS)


def a_change_while_gradients_are_accumulated() -> None:
    model = Net()
    wrapped = averaging(model)
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    handle = ft.freeze(model, "trunk")
    with wrapped.no_sync():
        wrapped(batch(1)).square().sum().backward()
        handle.undo()
        wrapped(batch(2)).square().sum().backward()
    wrapped(batch(3)).square().sum().backward()
    optimizer.step()
    assert_ranks_agree(model, but=STATISTICS)


def ranks_that_change_different_things_are_told() -> None:
    model = Net()
    averaging(model)
    wrapped = averaging(model)
    path = ("embed", "head")[distributed.get_rank()]
    text = refusal(RankError, lambda: ft.freeze(wrapped, path))
    assert text.split("\n") == [
        f"freeze(model, {path!r}) would change 2 parameters on rank 0, and others on 1 of 2 ranks:",
        "  rank 0 freezes embed.bias",
        "  rank 0 freezes embed.weight",
        "  rank 1 freezes head.bias",
        "  rank 1 freezes head.weight",
        "Make the same change on each rank: from the same seed, or from numbers that were averaged over the ranks.",
    ]
    assert set(ft.trainable(model)) == HEAD | EMBED | TRUNK


def schedules_keep_the_ranks_equal() -> None:
    walks: list[tuple[Schedule, list[set[str]]]] = [
        (LISA(BLOCKS, sampled=1, period=2, seed=3), []),
        (BAdam(BLOCKS, period=2), []),
        (ULMFiT(BLOCKS, period=2), [HEAD, HEAD | TRUNK, HEAD | TRUNK | EMBED]),
        (LinearProbe(["head"], steps=2), [HEAD, HEAD | TRUNK | EMBED, HEAD | TRUNK | EMBED]),
    ]
    for schedule, expected in walks:
        model = Net()
        wrapped = averaging(model)
        optimizer = adamw(model)
        driver = ft.Driver(schedule, wrapped, optimizer)
        seen = []
        for number in range(6):
            before, trainable = values(model), set(ft.trainable(model))
            train(wrapped, optimizer, [number])
            assert moved(model, before) - STATISTICS == trainable, schedule
            driver.step()
            assert_ranks_agree(model, but=STATISTICS)
            if number % 2 == 0:
                seen.append(trainable)
        if expected:
            assert seen == expected
        assert all(trainable for trainable in seen)


def a_policy_decides_by_the_mean_over_the_ranks() -> None:
    """On rank 0 alone the loss would fall for ever, and on rank 1 it would not."""
    model = Net()
    driver = ft.Driver(
        Plateau([Phase(["trunk"]), Phase()], patience=2), averaging(model), torch.optim.SGD(model.parameters(), lr=0.1)
    )
    for step in range(3):
        driver.step(loss=(10.0 - step) if distributed.get_rank() == 0 else (10.0 + 2 * step))
    assert set(ft.trainable(model)) == HEAD | EMBED | TRUNK
    name = ("loss", "error")[distributed.get_rank()]
    text = refusal(RankError, lambda: driver.step(**{name: 1.0}))
    assert text.split("\n") == [
        "driver.step(...) got numbers with other names on 1 of 2 ranks:",
        "  rank 0: loss",
        "  rank 1: error",
        "Pass the same numbers on each rank, in the same steps; their mean decides.",
    ]


def a_guard_knows_that_the_wrapper_copies_buffers() -> None:
    model = Net()
    wrapped = averaging(model)
    ft.freeze(model, "trunk")
    with torch.no_grad():
        model.trunk[1].running_mean.add_(distributed.get_rank())
    rank = distributed.get_rank()

    def call() -> None:
        with ft.guard(wrapped):
            wrapped(batch(0))

    if rank == 0:
        call()
        return
    assert refusal(MovedError, call).split("\n") == [
        "On rank 1 of 2, 1 of 7 frozen tensors moved.",
        "'trunk.1.running_mean' (buffer) moved. First difference: at [0], 1.0 -> 0.0; 6 of 6 values.",
        "  Likely cause: DistributedDataParallel copied it from rank 0 at the beginning of a call, and the ranks had "
        "different values.",
        "  Make them equal before the guarded block: rewrap(ddp); or wrap with DistributedDataParallel(model, "
        "broadcast_buffers=False).",
    ]


def statistics_that_are_frozen_are_those_of_rank_0() -> None:
    """Those that each rank has measured since the last call are made equal first, so the guard sees no copy."""
    model = Net()
    wrapped = averaging(model)
    train(wrapped, adamw(model), range(2))
    ft.freeze(model, "trunk")
    assert_ranks_agree(model)
    with ft.guard(wrapped):
        train(wrapped, adamw(model), range(2))


def synchronised_batch_norm_stays_held() -> None:
    model = Net()
    ft.freeze(model, "trunk[1]")
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    # PyTorch wants an accelerator for it, which only a training call needs.
    check, DistributedDataParallel._passing_sync_batchnorm_handle = (
        DistributedDataParallel._passing_sync_batchnorm_handle,
        lambda *_: None,
    )
    try:
        wrapped = averaging(model)
    finally:
        DistributedDataParallel._passing_sync_batchnorm_handle = check
    before = values(model)
    wrapped.train()
    assert not model.trunk[1].training
    frozen = {"trunk.1.weight", "trunk.1.bias"}
    assert set(ft.frozen(model)) == frozen
    with ft.guard(wrapped):
        wrapped.eval()
        wrapped(batch(0)).square().sum().backward()
    assert moved(model, before) == set()
    assert {name for name, p in model.named_parameters() if p.grad is None} == frozen


def frozen_uses_inside() -> None:
    class Adversary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.critic = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
            self.use = ft.Frozen(self.critic)
            self.actor = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            made = self.actor(x)
            return self.use(made) - self.critic(made.detach()) + ft.frozen_call(self.critic, made)

    model = Adversary()
    wrapped = averaging(model)
    optimizer = adamw(model)
    before = values(model)
    train(wrapped, optimizer, range(3))
    assert moved(model, before) >= {"actor.weight", "critic.0.weight", "use.0.weight"}
    statistics = {f"{part}.1.{name}" for part in ("use", "critic") for name in ("running_mean", "running_var")}
    assert_ranks_agree(model, but=statistics)
    ft.freeze(model, "critic")
    before = values(model)
    train(wrapped, optimizer, range(3))
    assert moved(model, before) - statistics == {"actor.weight", "actor.bias"}
    assert_ranks_agree(model, but=statistics)


CHECKS = {
    2: [
        a_change_that_would_be_ignored_is_refused_on_every_rank,
        without_a_word_the_ranks_drift,
        every_way_to_change_is_followed,
        gradients_are_those_of_a_new_wrapper,
        a_hook_of_communication_goes_on,
        a_change_between_forward_and_backward,
        a_change_while_gradients_are_accumulated,
        ranks_that_change_different_things_are_told,
        schedules_keep_the_ranks_equal,
        a_policy_decides_by_the_mean_over_the_ranks,
        a_guard_knows_that_the_wrapper_copies_buffers,
        statistics_that_are_frozen_are_those_of_rank_0,
        synchronised_batch_norm_stays_held,
        frozen_uses_inside,
    ]
}
