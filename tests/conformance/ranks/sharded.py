"""Models in shards (FSDP2), in two processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard

import frostline.torch as ft
from conformance.ranks.nets import (
    EMBED,
    HEAD,
    STATISTICS,
    TRUNK,
    Net,
    adamw,
    assert_ranks_agree,
    batch,
    moved,
    refusal,
    sharding,
    train,
    values,
)
from frostline import MovedError
from frostline.errors import UnsupportedError
from frostline.schedules import (
    LISA,
    AutoFreeze,
    BAdam,
    Egeria,
    FreezeOut,
    HiFT,
    LinearProbe,
    Phase,
    Phases,
    Plateau,
    Policy,
    Schedule,
    Span,
    ULMFiT,
)
from frostline.torch._tensors import whole

BLOCKS = ["embed", "trunk", "head"]


def before_and_after_sharding_it_is_the_same() -> None:
    first, last = Net(), sharding(Net())
    ft.freeze(first, "trunk")
    sharding(first)
    ft.freeze(last, "trunk")
    for model in (first, last):
        before = values(model)
        torch.manual_seed(4)
        train(model, adamw(model), range(3))
        assert moved(model, before) == HEAD | EMBED
        assert isinstance(model.trunk, FSDPModule)
    assert ft.plan(first) == ft.plan(last)
    assert values(first) == values(last)


def flags_differ_within_a_unit_and_change_between_steps() -> None:
    model = fully_shard(Net())
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    handle = ft.freeze(model, "trunk[0].weight", "head.bias")
    for expected in (
        HEAD | EMBED | TRUNK | STATISTICS,
        (HEAD | EMBED | TRUNK | STATISTICS) - {"trunk.0.weight", "head.bias"},
    )[::-1]:
        before = values(model)
        train(model, optimizer, range(2))
        assert moved(model, before) == expected
        handle.undo()
    assert_ranks_agree(model, but=STATISTICS)


def a_change_after_a_call_without_backward_is_kept() -> None:
    """Such a call leaves whole weights in the outermost unit, which are replaced later, and their flags with them."""
    model = fully_shard(Net())
    model.eval()
    model(batch(0))
    assert type(model.head.weight) is nn.Parameter
    ft.freeze(model, "head")
    before = values(model)
    train(model, adamw(model), range(2))
    assert moved(model, before) == TRUNK | EMBED | STATISTICS
    with torch.no_grad():
        model(batch(0))
    with ft.guard(model) as watching, torch.no_grad():
        model(batch(1))
    assert watching.paths == HEAD
    assert set(ft.frozen(model)) == HEAD


def reports_counts_and_costs_are_those_of_the_whole_model() -> None:
    plain, model = Net(), sharding(Net())
    for each in (plain, model):
        ft.freeze(each, "trunk")
    totals = ft.report(model).to_dict()["totals"]
    assert (totals["params"], totals["frozen_params"], totals["bytes"]) == (105, 54, 420)
    x = torch.ones(8, 4)
    assert str(ft.cost(model, x)) == str(ft.cost(plain, x))
    assert ft.audit(model, x).reached == ft.audit(plain, x).reached
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    assert ft.check(model, optimizer) == []
    train(model, optimizer, [0])
    # Two moments of 51 values of 4 bytes, on all ranks together.
    assert ft.report(model, optimizer).to_dict()["totals"]["optimizer_bytes"] == 408


def each_rank_proves_its_own_shard() -> None:
    model = sharding(Net())
    ft.freeze(model, "trunk")
    rank = distributed.get_rank()

    def write() -> None:
        with ft.guard(model):
            train(model, adamw(model), range(2))
            if rank == 1:
                model.trunk[0].weight.data.to_local()[0, 2] = 1.5
                model.trunk[1].running_mean[3] = 2.5

    if rank == 0:
        write()
        return
    lines = refusal(MovedError, write).split("\n")
    assert lines[0] == "On rank 1 of 2, 2 of 7 frozen tensors moved."
    assert lines[1].startswith("'trunk.0.weight' (parameter) moved. First difference in its local tensor: at [0, 2], ")
    assert lines[1].endswith(" -> 1.5; 1 of 18 values.")
    assert lines[2] == (
        "  Likely cause: in-place write: something wrote into it (copy_, add_, an initialiser, an average)."
    )
    assert lines[4] == "'trunk.1.running_mean' (buffer) moved. First difference: at [3], 0.0 -> 2.5; 1 of 6 values."


def a_frozen_use_inside_and_one_of_a_sharded_layer() -> None:
    inside = Net()
    inside.trunk = ft.Frozen(inside.trunk)
    sharding(inside)
    before = values(inside)
    train(inside, adamw(inside), range(3))
    assert moved(inside, before) == HEAD | EMBED
    assert_ranks_agree(inside)

    plain, model = Net(), sharding(Net())
    use = ft.Frozen(model.embed)
    x, y = torch.ones(2, 4, requires_grad=True), torch.ones(2, 4, requires_grad=True)
    out = use(x)
    expected = plain.embed(y)
    assert torch.equal(out, expected)
    assert torch.equal(ft.frozen_call(model.embed, x), expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(x.grad, y.grad)
    assert model.embed.weight.grad is None
    train(model, adamw(model), range(2))
    with torch.no_grad():  # it sees how the layer has moved
        want = nn.functional.linear(x, whole(model.embed.weight), whole(model.embed.bias))
        assert torch.equal(use(x), want)
        assert not torch.equal(want, expected)


def a_use_that_is_sharded_apart_from_its_layer_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.use = ft.Frozen(self.layer)

        def forward(self, x: Tensor) -> Tensor:
            return self.use(self.layer(x))

    assert refusal(UnsupportedError, lambda: fully_shard(Twice())).split("\n") == [
        "Frozen(Linear) was sharded together with the layer itself, which made two tensors of 'weight': the use would "
        "not see how the layer trains.",
        "Leave the use out of the model, and call it: frozen_call(self.layer, x).",
    ]


SCHEDULES: list[Schedule] = [
    Phases([Span(0, 2, Phase(["**", "!head"])), Span(2, None, Phase(["embed"], rates=[("trunk", 0.5)]))]),
    LinearProbe(["head"], steps=2),
    ULMFiT(BLOCKS, period=2),
    LISA(BLOCKS, sampled=1, period=1, seed=2),
    BAdam(BLOCKS, period=1),
    HiFT(BLOCKS, size=2),
    FreezeOut(BLOCKS, steps=4),
]
POLICIES: list[tuple[Policy, dict[str, float]]] = [
    (Plateau([Phase(["**", "!head"]), Phase()], patience=1), {"loss": 1.0}),
    (AutoFreeze(BLOCKS), {"embed": 1.0, "trunk": 2.0, "head": 3.0}),
    (Egeria(BLOCKS, window=2, patience=1), {"embed": 0.5, "trunk": 0.5, "head": 0.5, "learning_rate": 0.1}),
]


def every_schedule_moves_what_its_plan_says() -> None:
    for along, observation in [*((schedule, {}) for schedule in SCHEDULES), *POLICIES]:
        model = sharding(Net())
        optimizer = adamw(model)
        driver = ft.Driver(along, model, optimizer)
        for number in range(4):
            before, trainable = values(model), set(ft.trainable(model))
            train(model, optimizer, [number])
            assert moved(model, before) - STATISTICS == trainable, along
            shifted = {name: value + distributed.get_rank() for name, value in observation.items()}
            driver.step(**shifted)
        assert_ranks_agree(model, but=STATISTICS)


CHECKS = {
    2: [
        before_and_after_sharding_it_is_the_same,
        flags_differ_within_a_unit_and_change_between_steps,
        a_change_after_a_call_without_backward_is_kept,
        reports_counts_and_costs_are_those_of_the_whole_model,
        each_rank_proves_its_own_shard,
        a_frozen_use_inside_and_one_of_a_sharded_layer,
        a_use_that_is_sharded_apart_from_its_layer_is_refused,
        every_schedule_moves_what_its_plan_says,
    ]
}
