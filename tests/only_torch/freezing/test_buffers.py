"""Buffers that are frozen or thawed by themselves, apart from the parameters of their module."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError, NoMatchError, Plan, regex, where
from frostline.errors import PinnedError, PlanMismatchError, UnsupportedError
from frostline.schedules import Phase, Phases, Span
from only_torch.bits import contents
from only_torch.bits import moved as changed

STATISTICS = {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
AFFINE = {"bn.weight", "bn.bias"}
REST = {"body.weight", "body.bias", "head.weight", "head.bias"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.bn, self.drop, self.head = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.bn(self.body(x)).relu()))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def moved(model: nn.Module, steps: int = 2) -> set[str]:
    """Trains, and returns what has other bytes then."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


# What is frozen, and what moves then.
FROZEN: list[tuple[list[Any], set[str]]] = [
    (["**.running_{mean,var}"], AFFINE | REST),
    (["bn.running_*"], AFFINE | REST),
    (["bn.running_*", "bn.num_batches_tracked"], AFFINE | REST),
    ([regex(r".*\.running_.*")], AFFINE | REST),
    (["body", "**.running_*"], AFFINE | {"head.weight", "head.bias"}),
    (["bn.running_*", "bn.bias"], {"bn.weight"} | REST),
    (["bn", "!bn.running_*"], STATISTICS | REST),
    (["**", "!head", "!**.running_*"], STATISTICS | {"head.weight", "head.bias"}),
    # The last word decides, as in .gitignore.
    (["bn", "!bn.running_*", "bn.running_*"], REST),
    (["bn", "!bn.running_*", "bn"], REST),
    (["bn.running_*", "body", "!body"], AFFINE | REST),
    (["bn.running_*", "**", "!**", "body"], AFFINE | STATISTICS | {"head.weight", "head.bias"}),
    # A pattern that names parameters alone leaves the rule as it is.
    (["bn.weight"], {"bn.bias"} | STATISTICS | REST),
    (["bn.{weight,bias}"], REST),
    (["bn"], REST),
]


@pytest.mark.parametrize(("selectors", "moves"), FROZEN, ids=[str(selectors) for selectors, _ in FROZEN])
def test_what_moves(selectors: list[Any], moves: set[str]) -> None:
    model = net()
    handle = ft.freeze(model, *selectors)
    assert moved(model) == moves
    with ft.guard(model) as watching:
        moved(model)
    assert watching.paths == set(model.state_dict()) - moves
    assert ft.plan(model) == handle.plan
    assert [each.kind for each in ft.check(model)] == (["moving-statistics"] if selectors == ["bn.weight"] else [])
    handle.undo()
    assert moved(model) == AFFINE | STATISTICS | REST
    assert ft.plan(model) == ft.plan(net())
    assert all(module.training for module in model.modules())


def test_statistics_that_are_held_leave_the_rest_in_training_mode() -> None:
    model = net()
    ft.freeze(model, "bn.running_*")
    assert not model.train().bn.training
    assert model.drop.training
    assert model.training
    with torch.no_grad():
        model.bn.weight.fill_(2.0)
    x = torch.randn(5, 4)
    assert torch.equal(
        model.bn(x),
        nn.functional.batch_norm(x, model.bn.running_mean, model.bn.running_var, model.bn.weight, model.bn.bias),
    )
    assert torch.autograd.grad(model.bn(x).sum(), model.bn.weight)[0] is not None


def test_following_the_mode_normalises_with_the_batch() -> None:
    model = net()
    ft.freeze(model, "bn.running_*", mode="follow")
    assert model.train().bn.training
    x = torch.randn(5, 4)
    with torch.no_grad():
        assert torch.equal(
            model.bn(x), nn.functional.batch_norm(x, None, None, model.bn.weight, model.bn.bias, training=True)
        )
    assert moved(model) == AFFINE | REST


class Codebook(nn.Module):
    """Writes its codes in training mode, and trains a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(4))
        self.register_buffer("counts", torch.zeros(4))
        self.scale = nn.Parameter(torch.ones(4))
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.codes += x.detach().mean(0)
            self.counts += 1
        return self.norm(x) * self.scale + self.codes


@pytest.mark.parametrize("mode", ["eval", "follow"])
def test_a_module_of_ones_own_keeps_its_buffers_and_not_those_of_its_children(mode: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), Codebook(), nn.Linear(4, 2))
    ft.freeze(model, "[1].{codes,counts}", mode=mode)
    still = {"1.codes", "1.counts"}
    assert moved(model) == model.state_dict().keys() - still
    assert model[1].norm.training


@pytest.mark.parametrize("make", [nn.InstanceNorm1d, nn.BatchNorm1d], ids=["instance", "batch"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
def test_norms_of_several_kinds(make: Callable[..., nn.Module], affine: bool) -> None:
    norm = make(3, affine=affine, track_running_stats=True)
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(12, 2))
    ft.freeze(model, "**.running_*")
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    model.train()(torch.randn(5, 3, 4)).sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())
    ft.thaw(model, "**.running_*")
    model.train()(torch.randn(5, 3, 4)).sum().backward()
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_vectors_of_a_spectral_norm() -> None:
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
    ft.freeze(model, "**._{u,v}")
    still = {"0.parametrizations.weight.0._u", "0.parametrizations.weight.0._v"}
    assert moved(model) == model.state_dict().keys() - still


def test_thawing_is_the_counterpart() -> None:
    model = net()
    ft.freeze(model, "**", "!head")
    handle = ft.thaw(model, "**.running_*")
    assert moved(model) == STATISTICS | {"head.weight", "head.bias"}
    handle.undo()
    assert moved(model) == {"head.weight", "head.bias"}
    ft.thaw(model, "bn", "!bn.running_*")
    assert moved(model) == AFFINE | {"head.weight", "head.bias"}


@pytest.mark.parametrize("thawed", [(), ("bn",), ("**",), ("bn.running_*",)], ids=str)
def test_a_thaw_of_the_module_takes_the_statistics_along(thawed: tuple[str, ...]) -> None:
    model = net()
    frozen = ft.freeze(model, "bn.running_*")
    handle = ft.thaw(model, *thawed)
    assert moved(model) == AFFINE | STATISTICS | REST
    handle.undo()
    assert moved(model) == AFFINE | REST
    frozen.undo()
    assert moved(model) == AFFINE | STATISTICS | REST


def test_handles_undo_in_any_order() -> None:
    model = net()
    first, second = ft.freeze(model, "bn.running_*"), ft.freeze(model, "bn", "!bn.running_*")
    assert moved(model) == STATISTICS | REST
    first.undo()
    assert moved(model) == STATISTICS | REST
    second.undo()
    assert moved(model) == AFFINE | STATISTICS | REST
    first, second = ft.freeze(model, "bn.running_*"), ft.freeze(model, "bn")
    second.undo()
    assert moved(model) == AFFINE | REST
    first.undo()
    assert moved(model) == AFFINE | STATISTICS | REST


@pytest.mark.parametrize("selectors", [("bn.running_*",), ("bn", "!bn.running_*")], ids=str)
def test_a_plan_carries_the_buffers(selectors: tuple[str, ...]) -> None:
    model, other = net(), net()
    plan = ft.freeze(model, *selectors).plan
    assert (plan.still, plan.moving) == ((STATISTICS, set()) if len(selectors) == 1 else (set(), STATISTICS))
    assert Plan.from_json(plan.to_json()) == plan == Plan.from_toml(plan.to_toml())
    change = ft.follow(other, plan)
    assert change == ft.plan(net()).change_to(plan)
    assert change.apply_to(ft.plan(net())) == plan
    assert ft.plan(other) == plan
    assert moved(other) == moved(model)
    assert not ft.follow(other, plan)
    ft.follow(other, ft.plan(net()))
    assert moved(other) == AFFINE | STATISTICS | REST
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert ft.plan(again) == plan
        assert moved(again) == moved(model)


def test_plans_without_such_buffers_are_as_before() -> None:
    plan = ft.freeze(net(), "bn").plan
    assert plan == Plan(frozenset(AFFINE), frozenset(REST))
    assert "still" not in plan.to_dict()
    assert repr(plan) == "Plan(frozen=2, trainable=4)"
    assert repr(ft.freeze(net(), "bn.running_*").plan) == "Plan(frozen=0, trainable=6, still=3)"


def test_a_plan_of_another_model() -> None:
    plan = Plan(frozenset(), frozenset(AFFINE | REST), still=frozenset({"bn.mean"}))
    with pytest.raises(PlanMismatchError):
        ft.follow(net(), plan)


def test_a_schedule_freezes_statistics_in_a_phase() -> None:
    model = net()
    spans = [Span(0, 1, Phase(["**.running_*"])), Span(1, 2, Phase(["bn", "!bn.running_*"])), Span(2, None, Phase())]
    driver = ft.Driver(Phases(spans), model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert moved(model) == AFFINE | REST
    driver.step()
    assert moved(model) == STATISTICS | REST
    driver.step()
    assert moved(model) == AFFINE | STATISTICS | REST


PARTLY = [
    ("freeze", ("bn.running_mean",), "freeze(model, 'bn.running_mean')", "1", "bn.running_var"),
    ("freeze", ("bn", "!bn.running_var"), "freeze(model, 'bn', '!bn.running_var')", "1", "bn.running_mean"),
    ("freeze", ("bn.num_batches_tracked",), "freeze(model, 'bn.num_batches_tracked')", "1", "bn.running_mean"),
]


@pytest.mark.parametrize(("verb", "selectors", "expression", "count", "left"), PARTLY, ids=[row[2] for row in PARTLY])
def test_some_buffers_of_a_module_are_refused(
    verb: str, selectors: tuple[str, ...], expression: str, count: str, left: str
) -> None:
    model = net()
    with pytest.raises(UnsupportedError) as caught:
        ft.freeze(model, *selectors)
    assert str(caught.value).startswith(
        f"{expression} names {count} of the 3 buffers of 'bn', which stand still or move together. Not named: {left!r}"
    )
    assert moved(model) == AFFINE | STATISTICS | REST


def test_the_whole_text_of_the_refusal() -> None:
    with pytest.raises(UnsupportedError) as caught:
        ft.freeze(net(), "bn.running_mean")
    assert str(caught.value) == (
        "freeze(model, 'bn.running_mean') names 1 of the 3 buffers of 'bn', which stand still or move together. "
        "Not named: 'bn.running_var'.\n"
        "Name them, too: 'bn.running_var'."
    )


def test_a_typo_in_the_name_of_a_buffer_is_an_error_with_the_right_one() -> None:
    with pytest.raises(NoMatchError) as caught:
        ft.freeze(net(), "bn.runing_mean")
    assert caught.value.closest[0] == "bn.running_mean"
    with pytest.raises(NoMatchError):
        ft.freeze(net(), where(lambda param: "running" in param.path))


def test_a_buffer_may_be_given_as_an_object_and_counts_as_no_parameter() -> None:
    model = net()
    ft.freeze(model, [model.bn.running_mean, model.bn.running_var], expect=0)
    assert moved(model) == AFFINE | REST


def test_buffers_of_a_frozen_use_cannot_be_thawed() -> None:
    model = nn.Sequential(nn.Linear(3, 4), ft.Frozen(nn.BatchNorm1d(4)))
    with pytest.raises(PinnedError):
        ft.thaw(model, "**.running_*")
    assert ft.freeze(model, "**.running_*").plan == ft.plan(
        nn.Sequential(nn.Linear(3, 4), ft.Frozen(nn.BatchNorm1d(4)))
    )


def test_a_shared_module_is_named_by_any_of_its_names() -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.ModuleDict({"one": norm, "two": norm})
    ft.freeze(model, "two.running_*")
    assert not model.train()["one"].training
    assert ft.plan(model).still == {"one.running_mean", "one.running_var", "one.num_batches_tracked"}


def test_the_report_and_the_preview_show_them() -> None:
    model = net()
    ft.freeze(model, "bn.running_*")
    row = next(line for line in str(ft.report(model)).splitlines() if "BatchNorm1d" in line)
    assert row.split()[-3:] == ["trainable", "buffers", "frozen"]
    assert str(ft.select(model, "**.running_*", "body")).splitlines()[1:] == [
        "body  Linear                      2      16    64 B",
        "bn.running_mean  buffer           0       0     0 B",
        "bn.running_var  buffer            0       0     0 B",
        "2 of 6 parameters (16 of 34 params, 64 B) and 2 buffers by name.",
    ]
    other = net()
    ft.freeze(other, "bn", "!bn.running_*")
    row = next(line for line in str(ft.report(other)).splitlines() if "BatchNorm1d" in line)
    assert row.split()[-3:] == ["frozen", "buffers", "moving"]


def test_the_guard_sees_statistics_that_are_moved_by_hand() -> None:
    """The guard's negative control."""
    model = net()
    ft.freeze(model, "bn.running_*")
    with pytest.raises(MovedError, match=r"bn\.running_mean"), ft.guard(model):
        model.bn.running_mean.add_(1.0)


def test_a_delta_leaves_out_what_stands_still(tmp_path: Path) -> None:
    model, other = net(), net()
    ft.freeze(model, "bn.running_*", "body")
    moved(model)
    ft.save_delta(tmp_path / "run.safetensors", model)
    delta = ft.load_delta(tmp_path / "run.safetensors", other)
    assert set(delta.names) == AFFINE | {"head.weight", "head.bias"}
    assert ft.plan(other) == ft.plan(model)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_converted_norm_is_found_and_held_again_with_the_next_freeze() -> None:
    model = net()
    handle = ft.freeze(model, "bn.running_*")
    model.bn = nn.SyncBatchNorm.convert_sync_batchnorm(model.bn)
    assert str(ft.check(model)) == (
        "moved-claims: bn.running_mean, bn.running_var\n"
        "  They were frozen by themselves, and their module was converted since.\n"
        "  What has them now is not held, and writes them in training mode.\n"
        "  Fix: freeze(model, 'bn.running_mean', 'bn.running_var') again."
    )
    ft.freeze(model, "body")
    assert not model.train().bn.training
    assert not ft.check(model)
    handle.undo()
    assert model.train().bn.training


@pytest.mark.parametrize("mode", ["eval", "follow"])
def test_compiled(mode: Any) -> None:
    model = net()
    ft.freeze(model, "bn.running_*", mode=mode)
    before = model.bn.running_mean.clone()
    torch.compile(model.train(), fullgraph=True, backend="eager")(torch.randn(5, 3)).sum().backward()
    assert torch.equal(model.bn.running_mean, before)
    assert model.bn.weight.grad is not None


def test_names_outlive_new_tensors() -> None:
    model = net()
    ft.freeze(model, "bn.running_*")
    model.double().load_state_dict(net().double().state_dict(), assign=True)
    assert moved(model.float()) == AFFINE | REST


def around() -> nn.Sequential:
    inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False), nn.Dropout(0.5))
    return nn.Sequential(inner, nn.Linear(3, 3), nn.Dropout(0.5))


TRAINING = [
    (["[0]"], {"", "1", "2"}),
    (["[0]", "![0][1].running_*"], {"", "0", "0.1", "1", "2"}),
    (["[0]", "![0].**.running_*"], {"", "0", "0.1", "0.2", "1", "2"}),
    (["**", "![0][1].running_*"], {"", "0", "0.1"}),
    (["[0]", "![0][0]", "![0][1].running_*"], {"", "0", "0.0", "0.1", "0.3", "1", "2"}),
]


@pytest.mark.parametrize(("selectors", "training"), TRAINING, ids=[" ".join(row[0]) for row in TRAINING])
def test_dropout_around_statistics_that_adapt_is_off_where_all_parameters_are_frozen(
    selectors: list[str], training: set[str]
) -> None:
    model = around()
    handle = ft.freeze(model, *selectors)
    model.train()
    assert {path for path, module in model.named_modules() if module.training} == training
    before = contents(model)
    model(torch.randn(5, 3))
    norms = {path for path in ("0.1", "0.2") if path in training}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed(before, model) == {f"{path}.{name}" for path in norms for name in statistics}
    handle.undo()
    assert all(module.training for module in model.modules())
