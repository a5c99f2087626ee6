"""Freezing in place, after construction: what it drops, and what it leaves as it is (L5, L8, L10)."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import frostline.torch as ft
from only_torch.bits import bits, contents, gradients, moved, training, without_gradient
from only_torch.kinds import Kind, each_kind, loss
from only_torch.odd_layers import IntegerWeight, TiedPair


def net() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for seed in range(steps):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()


EVERYTHING = {f"0.{n}" for n in ("weight", "bias")} | {f"3.{n}" for n in ("weight", "bias")}
NORM = {f"1.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def test_nothing_frozen_moves_and_all_else_does() -> None:
    """L8, with an optimizer from before the freeze, its momenta, decay and gradients."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    train(model, optimizer)
    ft.freeze(model, "[:2]")
    before = contents(model)
    train(model, optimizer)
    assert moved(before, model) == {"3.weight", "3.bias"}


def test_everything_moves_when_nothing_is_frozen() -> None:
    """Negative control."""
    model = net()
    before = contents(model)
    train(model, torch.optim.AdamW(model.parameters(), lr=0.1))
    assert moved(before, model) == EVERYTHING | NORM


def test_flag_alone_lets_statistics_move() -> None:
    """Negative control: freezing as people write it by hand."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[:2].requires_grad_(False)
    before = contents(model)
    train(model, optimizer)
    assert moved(before, model) == NORM - {"1.weight", "1.bias"} | {"3.weight", "3.bias"}


def test_stale_gradients_are_dropped() -> None:
    """L8: an optimizer looks at the gradient, and never at the flag."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(3, 4)).sum().backward()
    ft.freeze(model, "0")
    before = contents(model)
    optimizer.step()
    assert without_gradient(model[0].parameters())
    assert {name for name in moved(before, model) if name.startswith("0.")} == set()


def test_gradients_of_the_others_are_kept() -> None:
    model = net()
    model(torch.ones(3, 4)).sum().backward()
    before = gradients(model[3])
    ft.freeze(model, "0")
    assert gradients(model[3]) == before
    assert not without_gradient(model[3].parameters())


@each_kind()
def test_frozen_kinds_stand_still(kind: Kind) -> None:
    """L1, L2, L3, L7 in place: each kind below a trainable scale, through any number of train() calls."""
    layer, x, same = kind.layer(), kind.input(), kind.input()
    before = contents(kind.constant())  # when it is held, and at no other time, its own train() may merge weights
    ft.freeze(layer)
    for _ in range(2):
        layer.train()
        out = kind.call(layer, kind.input(6))
    out = kind.call(layer.train(), x)
    loss(out).backward()
    expected = kind.call(kind.constant(), same)
    loss(expected).backward()
    assert bits(out) == bits(expected)
    assert bits(x.grad) == bits(same.grad)
    assert without_gradient(layer.parameters())
    assert moved(before, layer) == set()


@each_kind()
def test_thawed_kinds_behave_as_before(kind: Kind) -> None:
    """L10: flags, modes, attributes and the next training call."""
    layer, untouched = kind.layer(), kind.layer().eval().train()
    flags = [p.requires_grad for p in layer.parameters()]
    keys = [set(vars(m)) for m in layer.modules()]
    handle = ft.freeze(layer)
    layer.eval().train()
    handle.undo()
    assert [p.requires_grad for p in layer.parameters()] == flags
    assert training(layer) == training(untouched)
    assert [set(vars(m)) for m in layer.modules()] == keys
    for one in (layer, untouched):
        torch.default_generator.manual_seed(8)
        loss(kind.call(one, kind.input())).backward()
    assert gradients(layer) == gradients(untouched)
    assert contents(layer) == contents(untouched)


def test_objects_stay_the_same() -> None:
    """L10: an optimizer, a hook or a list made before points at the same objects after."""
    model = net()
    modules, parameters = [id(m) for m in model.modules()], [id(p) for p in model.parameters()]
    buffers, classes = [id(b) for b in model.buffers()], [type(m) for m in model.modules()]
    handle = ft.freeze(model)
    model.train()(torch.ones(3, 4))
    for _ in range(2):
        assert [id(m) for m in model.modules()] == modules
        assert all(isinstance(m, c) for m, c in zip(model.modules(), classes, strict=True))
        assert [type(m).__qualname__ for m in model.modules()] == [c.__qualname__ for c in classes]
        assert [id(p) for p in model.parameters()] == parameters
        assert [id(b) for b in model.buffers()] == buffers
        handle.undo()
    assert [type(m) for m in model.modules()] == classes


def test_state_dict_is_that_of_the_model() -> None:
    """L5."""
    model = net()
    before = contents(model)
    ft.freeze(model, "[:2]")
    assert list(model.state_dict()) == list(net().state_dict())
    assert contents(model) == before
    net().load_state_dict(model.state_dict(), strict=True)


def test_thaw_leaves_integers_alone() -> None:
    model = nn.Sequential(IntegerWeight())
    assert sorted(ft.trainable(model)) == ["0.scale"]
    handle = ft.freeze(model)
    ft.thaw(model)
    assert [p.requires_grad for p in model.parameters()] == [False, True]
    handle.undo()
    assert sorted(ft.trainable(model)) == ["0.scale"]
    assert sorted(ft.frozen(model)) == ["0.weight"]


class Root(nn.Module):
    """Has a parameter, a buffer and a dropout on the root."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(4))
        self.register_buffer("offset", torch.zeros(4))
        self.drop, self.body = nn.Dropout(0.5), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.drop(x + self.token + self.offset))


def test_parameter_on_the_root() -> None:
    model = Root()
    ft.freeze(model, "token")
    assert sorted(ft.frozen(model)) == ["token"]
    assert training(model.train()) == {"", "drop", "body"}


def test_parameterless_layer_on_the_root_is_not_touched() -> None:
    model = Root()
    ft.freeze(model, "body")
    assert training(model.train()) == {"", "drop"}
    ft.freeze(model, "token")
    assert training(model.train()) == set()


def test_dropout_shared_with_a_trainable_part_is_not_held() -> None:
    drop = nn.Dropout(0.5)
    model = nn.ModuleDict({"one": nn.Sequential(nn.Linear(2, 2), drop), "other": nn.Sequential(nn.Linear(2, 2), drop)})
    handle = ft.freeze(model, "one")
    assert training(model.train()) == {"", "one.1", "other", "other.0"}  # named once, under its first name
    ft.freeze(model, "other")
    assert training(model.train()) == set()
    handle.undo()
    assert training(model.train()) == {"", "one", "one.0", "one.1"}


def test_tied_parameter_is_frozen_under_any_of_its_names() -> None:
    for name in ("into.weight", "out.weight"):
        model = TiedPair()
        handle = ft.freeze(model, name)
        assert sorted(ft.frozen(model)) == ["into.weight"]
        assert sorted(ft.trainable(model)) == ["into.bias", "out.bias"]
        handle.undo()
        assert sorted(ft.frozen(model)) == []


def test_a_module_with_buffers_alone_can_be_named() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 4))
    before = contents(model)
    with ft.freeze(model, "0"):
        model.train()(torch.randn(5, 4))
        assert moved(before, model) == set()
        assert sorted(ft.plan(model).frozen) == ["0"]
    model.train()(torch.randn(5, 4))
    assert moved(before, model) == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}


def test_a_part_of_the_parameters_leaves_mode_and_buffers_alone() -> None:
    model = net()
    ft.freeze(model, "1.bias")
    before = contents(model)
    model.train()(torch.randn(5, 4))
    assert moved(before, model) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), saved])
def test_copy_of_a_frozen_model_stays_frozen_and_can_be_thawed(copied: object) -> None:
    model = net()
    handle = ft.freeze(model, "[:-1]")
    other = copied(model)
    handle.undo()
    assert sorted(ft.trainable(other)) == ["3.bias", "3.weight"]
    assert training(other.train()) == {"", "2", "3"}  # the dropout is at the top level, which is not frozen whole
    before = contents(other)
    other(torch.randn(5, 4))
    assert moved(before, other) == set()
    ft.thaw(other)
    assert training(other.train()) == {"", "0", "1", "2", "3"}
    assert len(ft.trainable(other)) == 6


def test_handle_of_the_original_does_not_touch_a_copy() -> None:
    model = net()
    handle = ft.freeze(model)
    other = copy.deepcopy(model)
    ft.freeze(model)
    handle.undo()
    assert ft.trainable(other) == {}
    assert training(other.train()) == set()


def test_freezing_a_layer_that_has_a_frozen_use_elsewhere() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(nn.Linear(2, 2), ft.Frozen(layer), layer)
    with ft.freeze(model, "2"):
        assert sorted(ft.trainable(model)) == ["0.bias", "0.weight"]
    assert sorted(ft.trainable(model)) == ["0.bias", "0.weight", "2.bias", "2.weight"]


def test_thaw_does_not_reach_a_frozen_use() -> None:
    model = nn.Sequential(nn.Linear(2, 2), ft.Frozen(nn.Linear(2, 2)))
    held = set(vars(model[1]))
    ft.freeze(model)
    ft.thaw(model)
    assert set(vars(model[1])) == held
    assert sorted(ft.trainable(model)) == ["0.bias", "0.weight"]
    model(torch.ones(1, 2)).sum().backward()
    assert without_gradient(model[1].parameters())
