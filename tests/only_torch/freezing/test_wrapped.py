"""Changes around a data-parallel wrapper are refused, or found: whole texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.nn.parallel import DistributedDataParallel

import frostline.torch as ft
from frostline.errors import UnsupportedError, WrappedError
from frostline.schedules import LinearProbe
from only_torch.field.evidence import state


def _net() -> nn.Module:
    model = nn.Sequential()
    model.add_module("trunk", nn.Linear(2, 2))
    model.add_module("use", ft.Frozen(nn.Linear(2, 2)))
    model.add_module("head", nn.Linear(2, 2))
    return model


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


FREEZES_ONE = ["It would wait for the gradients of 1 parameter to be frozen now:", "  head.weight"]
FREEZES = [
    "It would wait for the gradients of 2 parameters to be frozen now:",
    "  head.bias",
    "  head.weight",
]
THAWS = [
    "It would not average the gradients of 2 parameters to be thawed now:",
    "  trunk.bias",
    "  trunk.weight",
]
CHANGES: list[tuple[str, Callable[[nn.Module, ft.Handle], object], list[str]]] = [
    ("freeze", lambda model, _: ft.freeze(model, "head"), FREEZES),
    ("thaw", lambda model, _: ft.thaw(model, "trunk"), THAWS),
    ("follow", lambda model, _: ft.follow(model, ft.plan(model).freeze({"head.weight"})), FREEZES_ONE),
    ("undo", lambda _, handle: handle.undo(), THAWS),
    ("end of with", lambda _, handle: handle.__exit__(None, None, None), THAWS),
]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("by", ["wrapper", "bare model"])
@pytest.mark.parametrize(("name", "change", "lines"), CHANGES, ids=[name for name, _, _ in CHANGES])
def test_whole_text_around_a_data_parallel_model(
    name: str, change: Callable[[nn.Module, ft.Handle], object], lines: list[str], by: str
) -> None:
    """The last part of L12, around the model; F59 is the failure without it."""
    model = _net()
    handle = ft.freeze(model, "trunk")
    wrapped = DistributedDataParallel(model)
    before = state(wrapped)
    with pytest.raises(WrappedError) as caught:
        change(wrapped if by == "wrapper" else model, handle)
    assert str(caught.value).split("\n") == [
        "the model is wrapped in DistributedDataParallel, which noted the trainable parameters when it was made.",
        *lines,
        "Let it follow first, on each rank: ddp = rewrap(ddp). Or freeze first, then wrap: "
        "DistributedDataParallel(model).",
    ]
    assert state(wrapped) == before


@pytest.mark.usefixtures("group")
def test_a_driver_is_refused_before_its_first_step() -> None:
    model = _net()
    wrapped = DistributedDataParallel(model)
    before = state(wrapped)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(WrappedError) as caught:
        ft.Driver(LinearProbe(["head"], steps=5), model, optimizer)
    assert str(caught.value).split("\n") == [
        "the model is wrapped in DistributedDataParallel, which noted the trainable parameters when it was made.",
        "It would wait for the gradients of what is frozen later, and not average those of what thaws later.",
        "Let it follow first, on each rank: ddp = rewrap(ddp). Or freeze first, then wrap: "
        "DistributedDataParallel(model).",
    ]
    assert state(wrapped) == before


@pytest.mark.usefixtures("group")
def test_a_wrapper_that_is_gone_is_in_nobodys_way() -> None:
    """The negative control: with the wrapper, the same is refused."""
    model = _net()
    wrapped = DistributedDataParallel(model)
    wrapped.itself = [wrapped]  # so that nothing but a collection removes it
    with pytest.raises(WrappedError):
        ft.freeze(model, "head")
    del wrapped
    ft.freeze(model, "head")
    assert set(ft.trainable(model)) == {"trunk.weight", "trunk.bias"}


@pytest.mark.usefixtures("group")
def test_what_is_not_a_data_parallel_wrapper_cannot_be_wrapped_again() -> None:
    with pytest.raises(TypeError) as caught:
        ft.rewrap(_net())
    assert str(caught.value).split("\n") == [
        "rewrap takes a DistributedDataParallel; this is of type Sequential.",
        "fully_shard (FSDP2) needs no rewrap; FullyShardedDataParallel is made after freezing.",
    ]


@pytest.mark.usefixtures("group")
def test_a_wrapper_that_cannot_be_built_again() -> None:
    wrapped = DistributedDataParallel(_net())
    wrapped._register_builtin_comm_hook(torch.distributed.BuiltinCommHookType.FP16_COMPRESS)
    with pytest.raises(UnsupportedError) as caught:
        ft.rewrap(wrapped)
    assert str(caught.value).split("\n") == [
        "rewrap(ddp) cannot build a DistributedDataParallel again that has a built-in communication hook.",
        "Make it without, or make another wrapper after each change: ddp = DistributedDataParallel(model).",
    ]


@pytest.mark.usefixtures("group")
def test_whole_text_with_a_data_parallel_part() -> None:
    model = nn.Sequential(nn.Linear(2, 2), DistributedDataParallel(nn.Linear(2, 2)))
    ft.freeze(model, "0")  # it is outside of the wrapper
    with pytest.raises(WrappedError) as caught:
        ft.freeze(model, "1")
    assert (caught.value.wrapper, caught.value.path) == ("DistributedDataParallel", "1")
    assert str(caught.value).split("\n")[0] == (
        "'1' is wrapped in DistributedDataParallel, which noted the trainable parameters when it was made."
    )


@pytest.mark.usefixtures("group")
def test_a_call_that_changes_nothing_is_allowed_around_a_wrapper() -> None:
    """The negative control: freezing a frozen part again changes nothing, and neither does reading."""
    model = _net()
    ft.freeze(model, "trunk")
    wrapped = DistributedDataParallel(model)
    ft.freeze(wrapped, "trunk")
    assert not ft.follow(wrapped, ft.plan(wrapped))
    assert set(ft.trainable(wrapped)) == {"head.weight", "head.bias"}


@pytest.mark.usefixtures("group")
def test_frozen_behind_the_back_of_a_wrapper() -> None:
    """F59, one direction: freezing by hand after the wrap."""
    model = DistributedDataParallel(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert ft.check(model) == []
    model.module[0].requires_grad_(False)
    assert str(ft.check(model)).split("\n") == [
        "wrapped-then-frozen: 0.weight, 0.bias",
        "  DistributedDataParallel was made while they were trainable.",
        "  It waits for gradients that never come, or keeps memory for them.",
        "  Fix: let the wrapper follow, on each rank: ddp = rewrap(ddp).",
    ]


@pytest.mark.usefixtures("group")
def test_thawed_behind_the_back_of_a_wrapper() -> None:
    """F59, the other direction."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    ft.freeze(model, "0")
    model = DistributedDataParallel(model)
    assert ft.check(model) == []
    model.module.requires_grad_(True)
    findings = ft.check(model)
    assert [finding.kind for finding in findings] == ["wrapped-then-thawed", "thawed-by-hand", "held-but-trains"]
    assert str(findings[0]).split("\n") == [
        "wrapped-then-thawed: 0.weight, 0.bias",
        "  DistributedDataParallel was made while they were frozen.",
        "  Their gradients are not averaged: the ranks drift apart without a word.",
        "  Fix: let the wrapper follow, on each rank: ddp = rewrap(ddp).",
    ]


@pytest.mark.usefixtures("group")
def test_a_wrapped_part_is_seen() -> None:
    model = nn.Sequential(nn.Linear(2, 2), DistributedDataParallel(nn.Linear(2, 2)))
    model[1].module.bias.requires_grad_(False)
    assert [(f.kind, f.paths) for f in ft.check(model)] == [("wrapped-then-frozen", ("1.module.bias",))]


def _sharded() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    how = {"sharding_strategy": ShardingStrategy.NO_SHARD, "device_id": torch.device("cpu")}
    return FullyShardedDataParallel(model, use_orig_params=True, **how)


@pytest.mark.usefixtures("group")
def test_whole_text_around_a_sharded_model() -> None:
    model = _sharded()
    with pytest.raises(WrappedError) as caught:
        ft.freeze(model, "0")
    assert str(caught.value).split("\n") == [
        "the model is wrapped in FullyShardedDataParallel, which noted the trainable parameters when it was made.",
        "It would wait for the gradients of 2 parameters to be frozen now:",
        "  0.bias",
        "  0.weight",
        "Freeze first, then wrap: freeze(model, ...); model = FullyShardedDataParallel(model).",
    ]
    assert len(ft.trainable(model)) == 4


@pytest.mark.usefixtures("group")
def test_frozen_behind_the_back_of_a_sharded_model() -> None:
    model = _sharded()
    assert ft.check(model) == []
    model.module[0].requires_grad_(False)
    assert str(ft.check(model)).split("\n") == [
        "wrapped-then-frozen: 0.weight, 0.bias",
        "  FullyShardedDataParallel was made while they were trainable.",
        "  It waits for gradients that never come, or keeps memory for them.",
        "  Fix: freeze and thaw first, then wrap: FullyShardedDataParallel(model).",
    ]
