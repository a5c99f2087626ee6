"""F22 to F29, F34 to F36: what optimizers do to frozen parameters, and do not do to thawed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn, optim

import frostline.torch as ft
from frostline import MovedError
from only_torch.bits import contents, moved
from only_torch.field.evidence import below, train

Make = Callable[[Iterable[nn.Parameter]], optim.Optimizer]

KINDS: dict[str, Make] = {
    "sgd decay": lambda p, **how: optim.SGD(p, 0.1, weight_decay=0.1, **how),
    "sgd momentum": lambda p, **how: optim.SGD(p, 0.1, momentum=0.9, **how),
    "sgd nesterov decay": lambda p, **how: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1, **how),
    "adam": lambda p, **how: optim.Adam(p, 0.1, **how),
    "adamw": lambda p, **how: optim.AdamW(p, 0.1, weight_decay=0.1, **how),
    "rmsprop": lambda p, **how: optim.RMSprop(p, 0.1, momentum=0.9, weight_decay=0.1, **how),
    "adagrad": lambda p, **how: optim.Adagrad(p, 0.1, weight_decay=0.1, **how),
    "nadam": lambda p, **how: optim.NAdam(p, 0.1, weight_decay=0.1, **how),
    "adafactor": lambda p, **how: optim.Adafactor(p, 0.1, weight_decay=0.1, **how),
    "lbfgs": lambda p, **how: optim.LBFGS(p, 0.1, max_iter=2, **how),
}
FUSED = ["sgd decay", "sgd momentum", "sgd nesterov decay", "adam", "adamw", "adagrad"]
WAYS = (
    [(kind, "plain") for kind in KINDS]
    + [(kind, "foreach") for kind in KINDS if kind != "lbfgs"]
    + [(kind, "fused") for kind in FUSED]
)
each_way = pytest.mark.parametrize(("kind", "way"), WAYS, ids=[f"{kind} {way}" for kind, way in WAYS])


def _make(kind: str, way: str) -> Make:
    how = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[way]
    return lambda parameters: KINDS[kind](parameters, **({} if kind == "lbfgs" else how))


def _net() -> nn.Module:
    """A trainable stem, a trunk to freeze (with statistics and dropout), and a head with both kinds of state."""
    model = nn.Sequential()
    model.add_module("stem", nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    model.add_module("trunk", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1), nn.Linear(4, 4)))
    model.add_module("head", nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)))
    return model


def _loss(model: nn.Module) -> torch.Tensor:
    return (model(torch.linspace(-1, 1, 24).reshape(6, 4).sin()) - 1).square().sum()


def _plainly(model: nn.Module, optimizer: optim.Optimizer) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = _loss(model)
        loss.backward()
        return loss

    optimizer.step(closure)


def _clipped(model: nn.Module, optimizer: optim.Optimizer) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=False)
        loss = _loss(model)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        return loss

    optimizer.step(closure)


def _accumulated(model: nn.Module, optimizer: optim.Optimizer) -> None:
    _loss(model).backward()
    _loss(model).backward()
    optimizer.step(lambda: _loss(model))
    optimizer.zero_grad(set_to_none=False)


def _scaled(model: nn.Module, optimizer: optim.Optimizer) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.zero_grad(set_to_none=False)
    scaler.scale(_loss(model)).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    scaler.step(optimizer)
    scaler.update()


Routine = Callable[[nn.Module, optim.Optimizer], None]
ROUTINES: dict[str, Routine] = {
    "plain": _plainly,
    "clipped": _clipped,
    "accumulated": _accumulated,
    "scaled": _scaled,
}


def _leave_gradients(model: nn.Module, gradient: str) -> None:
    """Gradients as a step before may leave them: none, zeros, or what backward wrote."""
    model.zero_grad(set_to_none=True)
    if gradient != "none":
        _loss(model).backward()
    if gradient == "zero":
        model.zero_grad(set_to_none=False)


def _warm(kind: str, way: str, gradient: str) -> tuple[nn.Module, optim.Optimizer]:
    """A model that has been trained for two steps, and its optimizer with momentum for all of it."""
    model = _net()
    optimizer = _make(kind, way)(list(model.parameters()))
    for _ in range(2):
        _plainly(model, optimizer)
    _leave_gradients(model, gradient)
    return model, optimizer


def _run(routine: str, kind: str, model: nn.Module, optimizer: optim.Optimizer) -> None:
    # GradScaler takes no closure, which LBFGS needs.
    step = ROUTINES["clipped" if (kind, routine) == ("lbfgs", "scaled") else routine]
    for _ in range(2):
        model.train()
        step(model, optimizer)


@pytest.mark.parametrize("routine", ROUTINES)
@pytest.mark.parametrize("gradient", ["none", "zero", "stale"])
@each_way
def test_f22_frozen_in_place_under_a_blind_routine(kind: str, way: str, gradient: str, routine: str) -> None:
    """DetNAS#3: frozen mid-training, with momentum and all parameters in the optimizer, weights moved on."""
    model, optimizer = _warm(kind, way, gradient)
    ft.freeze(model, "trunk")
    before = contents(model)
    _run(routine, kind, model, optimizer)
    assert moved(before, model) == set(before) - below(model, "trunk")


@pytest.mark.parametrize("routine", ROUTINES)
@each_way
def test_f22_frozen_per_use_under_a_blind_routine(kind: str, way: str, routine: str) -> None:
    """DetNAS#3, per use: the layer was trained by another model before, and has that one's gradients."""
    other, _ = _warm(kind, way, "stale")
    layer = other.trunk
    model = _net()
    model.trunk = ft.Frozen(layer)
    optimizer = _make(kind, way)(list(model.parameters()))
    before, layer_before = contents(model), contents(layer)
    _run(routine, kind, model, optimizer)
    assert moved(before, model) == set(before) - below(model, "trunk")
    assert moved(layer_before, layer) == set()


@pytest.mark.parametrize("gradient", ["zero", "stale"])
@each_way
def test_f22_by_hand_it_moves(kind: str, way: str, gradient: str) -> None:
    """DetNAS#3: requires_grad=False and eval() by hand; optimizers read .grad and never the flag."""
    model, optimizer = _warm(kind, way, gradient)
    model.trunk.requires_grad_(False).eval()
    before = contents(model.trunk)

    def closure() -> torch.Tensor:
        loss = _loss(model)
        loss.backward()
        return loss

    # Without the hooks of step, one of which keeps LBFGS to what is trainable once anything was frozen.
    type(optimizer).step.__wrapped__(optimizer, closure)
    assert moved(before, model.trunk) >= {"0.weight", "1.weight", "3.weight"}


def _lbfgs_step(model: nn.Module, optimizer: optim.Optimizer) -> None:
    x = torch.ones(3, 4, requires_grad=True)

    def closure() -> torch.Tensor:
        loss = (model(x) - 1).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def test_f22_lbfgs_moves_nothing_where_everything_is_frozen() -> None:
    """DetNAS#3, with LBFGS, whose history points into all it once trained, and only an input to learn."""
    model, optimizer = _warm("lbfgs", "plain", "zero")
    ft.freeze(model)
    before = contents(model)
    _lbfgs_step(model, optimizer)
    assert moved(before, model) == set()


def test_f22_lbfgs_moves_again_what_was_thawed() -> None:
    """DetNAS#3, with LBFGS: what was left out of its steps comes back with the thaw."""
    model, optimizer = _warm("lbfgs", "plain", "zero")
    handle = ft.freeze(model, "trunk")
    _lbfgs_step(model, optimizer)
    handle.undo()
    before = contents(model)
    _lbfgs_step(model.eval(), optimizer)
    assert moved(before, model) == {name for name, _ in model.named_parameters()}


def test_f22_the_first_step_from_nothing_moves_nothing_frozen() -> None:
    """curated-transformers PR#69: frozen before the first step, with decay, there is no .grad at all."""
    model = _net()
    ft.freeze(model, "trunk")
    before = contents(model)
    train(model, torch.ones(3, 4))
    assert moved(before, model) >= below(model, "head.0")
    assert moved(before, model) & below(model, "trunk") == set()


class DecaysAll(optim.SGD):
    """An optimizer that decays whatever it has, gradient or not, as some outside PyTorch do."""

    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(0.9)
        super().step(closure)


def test_f23_an_optimizer_that_decays_without_a_gradient_is_caught_and_cured() -> None:
    """Muon#54: parameters decay even where .grad is None; the guard says so, trainable() cures it."""
    model, x = _net(), torch.randn(6, 4)
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
    model, x = _net(), torch.randn(6, 4)
    groups = [{"params": model.trunk.parameters(), "lr": 0.0}, {"params": model.head.parameters(), "lr": 0.1}]
    optimizer = optim.AdamW(groups)
    before = contents(model.trunk)
    model(x).sum().backward()
    optimizer.step()
    assert moved(before, model.trunk) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert len(optimizer.state) == 10

    model = _net()
    ft.freeze(model, "trunk", "stem")
    before = contents(model.trunk)
    optimizer = train(model, x, make=optim.AdamW)
    assert moved(before, model.trunk) == set()
    assert len(optimizer.state) == 4


def _trainable_only(model: nn.Module) -> optim.Optimizer:
    return optim.AdamW([p for p in model.parameters() if p.requires_grad])


def test_f25_thawing_what_the_optimizer_never_got_is_found() -> None:
    """detectron2#2486: the optimizer was built while frozen, so thawing has no effect and no error."""
    model = _net()
    handle = ft.freeze(model, "trunk")
    optimizer = _trainable_only(model)
    assert ft.check(model, optimizer) == []
    handle.undo()
    before = contents(model.trunk)
    model.eval()
    _loss(model).backward()
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
    model = _net()
    optimizer = optim.AdamW(model.parameters())
    handle = ft.freeze(model, "trunk")
    handle.undo()
    assert ft.check(model, optimizer) == []
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        optimizer.add_param_group({"params": list(model.trunk.parameters())})
    assert len(optimizer.param_groups) == 1


def test_f27_freeze_and_thaw_replace_no_parameter() -> None:
    """timm: freeze and unfreeze replace norms, and 40 parameters of a resnet18 leave the optimizer."""
    model = _net()
    optimizer = optim.AdamW(model.parameters(), weight_decay=0.1)
    handle = ft.freeze(model)
    handle.undo()
    assert [id(p) for p in model.parameters()] == [id(p) for p in optimizer.param_groups[0]["params"]]
    before = contents(model)
    _plainly(model, optimizer)
    assert moved(before, model) == set(before)

    model.head[0] = nn.BatchNorm1d(4)
    assert [finding.kind for finding in ft.check(model, optimizer)] == ["unowned", "foreign"]


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
    model, x = _net(), torch.randn(6, 4)
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
    model = _net()
    handle = ft.freeze(model, "trunk")
    whole, filtered = optim.SGD(model.parameters(), 0.1), _trainable_only(model)
    handle.undo()
    assert ft.check(model, whole) == []
    assert [finding.kind for finding in ft.check(model, filtered)] == ["unowned"]
