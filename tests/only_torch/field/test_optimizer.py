"""F23 to F29, F34 to F36: optimizers that move frozen parameters, and do not move thawed ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn, optim

import frostline.torch as ft
from frostline import MovedError
from only_torch.bits import contents, moved
from only_torch.field.evidence import below, train
from only_torch.field.routines import loss, net, plainly


class DecaysAll(optim.SGD):
    """An optimizer that decays all its parameters, gradient or not, as some outside PyTorch do."""

    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.9)
        super().step(closure)


def test_f23_an_optimizer_that_decays_without_a_gradient_is_caught_and_cured() -> None:
    """Muon#54: parameters decay even where .grad is None; the guard says so, trainable() cures it."""
    model, x = net(), torch.randn(6, 4)
    ft.freeze(model, "trunk")
    with pytest.raises(MovedError) as caught, ft.guard(model):
        train(model, x, steps=1, make=lambda p: DecaysAll(p, 0.1))
    paths = {f"trunk.{rest}" for rest in ("0.weight", "0.bias", "1.weight", "3.weight", "3.bias")}
    assert {movement.path for movement in caught.value.moved} == paths

    with ft.guard(model) as watching:
        train(model, x, steps=1, make=lambda _: DecaysAll(ft.trainable(model).values(), 0.1))
    assert watching.paths >= paths


def test_f24_a_learning_rate_of_zero_is_not_freezing() -> None:
    """mmdetection#8210: "lr = 0 is not equal to freeze": statistics, gradients and moments go on."""
    model, x = net(), torch.randn(6, 4)
    groups = [{"params": model.trunk.parameters(), "lr": 0.0}, {"params": model.head.parameters(), "lr": 0.1}]
    optimizer = optim.AdamW(groups)
    before = contents(model.trunk)
    model(x).sum().backward()
    optimizer.step()
    assert moved(before, model.trunk) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert len(optimizer.state) == 10

    model = net()
    ft.freeze(model, "trunk", "stem")
    before = contents(model.trunk)
    optimizer = train(model, x, make=optim.AdamW)
    assert moved(before, model.trunk) == set()
    assert len(optimizer.state) == 4


def _trainable_only(model: nn.Module) -> optim.Optimizer:
    return optim.AdamW([p for p in model.parameters() if p.requires_grad])


def test_f25_thawing_a_parameter_that_the_optimizer_never_got_is_found() -> None:
    """detectron2#2486: the optimizer was built while frozen, so thawing has no effect and no error."""
    model = net()
    handle = ft.freeze(model, "trunk")
    optimizer = _trainable_only(model)
    assert ft.check(model, optimizer) == []
    handle.undo()
    before = contents(model.trunk)
    model.eval()
    loss(model).backward()
    optimizer.step()
    assert moved(before, model.trunk) == set()

    (finding,) = ft.check(model, optimizer)
    assert (finding.kind, set(finding.paths)) == (
        "unowned",
        {"trunk.0.weight", "trunk.0.bias", "trunk.1.weight", "trunk.1.bias", "trunk.3.weight", "trunk.3.bias"},
    )
    optimizer.add_param_group({"params": [ft.trainable(model)[path] for path in finding.paths]})
    assert ft.check(model, optimizer) == []
    optimizer.step()
    assert {f"trunk.{name}" for name in moved(before, model.trunk)} == set(finding.paths)


def test_f26_thawing_needs_no_new_group_where_the_optimizer_has_all() -> None:
    """finetuning-scheduler#4: parameters that the optimizer had already were added once more."""
    model = net()
    optimizer = optim.AdamW(model.parameters())
    handle = ft.freeze(model, "trunk")
    handle.undo()
    assert ft.check(model, optimizer) == []
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        optimizer.add_param_group({"params": list(model.trunk.parameters())})
    assert len(optimizer.param_groups) == 1


def test_f27_freeze_and_thaw_replace_no_parameter() -> None:
    """timm: freeze and unfreeze replace norms, and 40 parameters of a resnet18 leave the optimizer."""
    model = net()
    optimizer = optim.AdamW(model.parameters(), weight_decay=0.1)
    handle = ft.freeze(model)
    handle.undo()
    assert [id(p) for p in model.parameters()] == [id(p) for p in optimizer.param_groups[0]["params"]]
    before = contents(model)
    plainly(model, optimizer)
    assert moved(before, model) == set(before)

    model.head[0] = nn.BatchNorm1d(4)
    assert [finding.kind for finding in ft.check(model, optimizer)] == ["no-gradient", "unowned", "foreign"]


def _two_equal_norms() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4))


def test_f28_equal_values_are_not_the_same_parameter() -> None:
    """Lightning, filter_on_optimizer: torch.equal drops the second LayerNorm, whose values equal the first's."""
    model = _two_equal_norms()
    ft.freeze(model)
    ft.thaw(model, "1")
    optimizer = optim.SGD(ft.trainable(model).values(), 0.1)
    ft.thaw(model, "3")
    owned = optimizer.param_groups[0]["params"]
    by_value = [p for p in model[3].parameters() if not any(torch.equal(p, o) for o in owned)]
    assert by_value == []

    (finding,) = ft.check(model, optimizer)
    assert (finding.kind, finding.paths) == ("unowned", ("3.weight", "3.bias"))
    optimizer.add_param_group({"params": [ft.trainable(model)[path] for path in finding.paths]})
    before = contents(model)
    model(torch.linspace(-1, 1, 12).reshape(3, 4)).pow(3).sum().backward()
    optimizer.step()
    assert moved(before, model) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_f29_one_cycle_goes_on_over_a_thaw() -> None:
    """lightning-flash#1321: OneCycleLR breaks on a group that is added at the thaw; a flag needs none."""
    model, x = net(), torch.randn(6, 4)
    handle = ft.freeze(model, "trunk")
    optimizer = optim.SGD(model.parameters(), 0.1)
    cycle = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=8)
    for step in range(6):
        before = contents(model.trunk)
        model.train()(x).square().sum().backward()
        optimizer.step()
        cycle.step()
        assert bool(moved(before, model.trunk)) is (step >= 3)
        if step == 2:
            handle.undo()
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    with pytest.raises(KeyError):
        cycle.step()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing the compiler uses torch.jit
def test_f34_a_compiled_step_after_a_freeze() -> None:
    """pytorch#115607: the compiled step of Adagrad failed when a parameter was frozen on the way."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = optim.Adagrad(model.parameters(), 0.1, weight_decay=0.1)
    step = torch.compile(optimizer.step, backend="eager")
    for frozen in (False, True):
        if frozen:
            ft.freeze(model, "0")
        before = contents(model)
        model(torch.ones(3, 4)).sum().backward()
        step()
        assert moved(before, model) == set(before) - (below(model, "0") if frozen else set())


def test_f35_an_optimizer_without_anything_to_train_is_found_before_the_scaler_fails() -> None:
    """nerfstudio PR#1919: "No inf checks were recorded" when every gradient of one optimizer is None."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    ft.freeze(model, "0")
    trunk, head = optim.AdamW(model[0].parameters()), optim.AdamW(model[1].parameters())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.ones(3, 4)).sum()).backward()
    scaler.step(head)
    with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer"):
        scaler.step(trunk)
    assert [finding.kind for finding in ft.check(model, [trunk, head])] == ["idle-optimizer"]
    assert ft.check(model, [head]) == []


def test_f36_an_optimizer_may_be_made_over_all_of_a_frozen_model() -> None:
    """pytorch#1266: it was an error once, hence the filter that makes a later thaw do nothing."""
    model = net()
    handle = ft.freeze(model, "trunk")
    whole, filtered = optim.SGD(model.parameters(), 0.1), _trainable_only(model)
    handle.undo()
    assert ft.check(model, whole) == []
    assert [finding.kind for finding in ft.check(model, filtered)] == ["unowned"]
