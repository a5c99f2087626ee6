"""A frozen use follows the plain attributes of its layer, and keeps those that it was given itself (L6)."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from only_torch.bits import bits, contents
from only_torch.foreign_layers import Merging, Reparametrized, StemStill, stay

X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.5, 1.0], [2.0, 2.5, -3.0, 0.5]])


class Settings:
    """A configuration object, as libraries pass one to each of their modules."""

    def __init__(self) -> None:
        self.scale = 1.0


class Configured(nn.Module):
    """Reads what it computes from numbers, strings, containers and a configuration."""

    power = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.active, self.alpha, self.eps = "a", 1.0, 0.0
        self.options: dict[str, Any] = {"scale": 1.0, "inner": {"shift": 0.0}}
        self.order = ["a"]
        self.settings = Settings()

    def forward(self, x: Tensor) -> Tensor:
        y = self.alpha * getattr(self, self.active)(x) + self.eps
        for name in self.order:
            y = y + getattr(self, name)(x)
        y = y * self.options["scale"] + self.options["inner"]["shift"]
        return self.settings.scale * y * self.power


def set_number(layer: Configured) -> None:
    layer.alpha = 0.25


def set_string(layer: Configured) -> None:
    layer.active = "b"


def change_dict(layer: Configured) -> None:
    layer.options["scale"] = 3.0


def change_inner_dict(layer: Configured) -> None:
    layer.options["inner"]["shift"] = 3.0


def replace_dict(layer: Configured) -> None:
    layer.options = {"scale": 4.0, "inner": {"shift": 1.0}}


def change_list(layer: Configured) -> None:
    layer.order.append("b")


def change_settings(layer: Configured) -> None:
    layer.settings.scale = 5.0


def replace_settings(layer: Configured) -> None:
    layer.settings = Settings()
    layer.settings.scale = 6.0


def shadow_the_class(layer: Configured) -> None:
    layer.power = 2.0


def patch_forward(layer: Configured) -> None:
    layer.forward = types.MethodType(lambda self, x: self.b(x) * 7, layer)


CHANGES = [
    *(set_number, set_string, change_dict, change_inner_dict, replace_dict, change_list),
    *(change_settings, replace_settings, shadow_the_class, patch_forward),
]


def inside(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Identity(), layer)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("around", [lambda layer: layer, inside], ids=["itself", "below it"])
@pytest.mark.parametrize("calls", [0, 2])
def test_it_follows(change: Any, around: Any, calls: int) -> None:
    layer = Configured()
    whole = around(layer)
    use = ft.Frozen(whole)
    first = bits(whole(X))
    for _ in range(calls):
        assert (bits(use(X)), bits(ft.frozen_call(whole, X))) == (first, first)
    change(layer)
    expected = bits(whole(X))
    assert expected != first
    assert (bits(use(X)), bits(ft.frozen_call(whole, X))) == (expected, expected)


@pytest.mark.parametrize("change", CHANGES[:-1])
def test_a_compiled_model_follows_after_it_is_compiled_anew(change: Any) -> None:
    layer = Configured()
    model = nn.Sequential(nn.Linear(4, 4), ft.Frozen(layer))
    change(layer)
    expected = bits(layer(model[0](X)))
    torch._dynamo.reset()
    assert bits(model(X)) == expected
    assert bits(torch.compile(model, backend="eager")(X)) == expected


def test_an_attribute_is_deleted() -> None:
    layer = Configured()
    layer.power = 3.0
    use = ft.Frozen(layer)
    use(X)
    del layer.power
    assert bits(use(X)) == bits(layer(X))


def test_what_the_use_was_given_stays() -> None:
    layer, plain = Configured(), Configured()
    plain.load_state_dict(layer.state_dict())
    use = ft.Frozen(layer)
    use(X)
    use.alpha = plain.alpha = 9.0
    layer.alpha = 0.5
    layer.eps = plain.eps = 2.0
    assert bits(use(X)) == bits(plain(X))
    assert (layer.alpha, use.alpha) == (0.5, 9.0)


def test_an_epsilon_deep_inside() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8).eval()
    use = ft.Frozen(layer)
    use(X)
    layer.norm1.eps = 1.0
    assert bits(use(X)) == bits(layer(X))


class Keeping(nn.Module):
    """Sets and fills attributes in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.calls, self.last, self.table = 0, None, {}

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.linear(x)
        if "weight" not in self.table:
            self.table["weight"] = self.linear.weight.sum()
        self.made = self.last.sum()
        return self.last + self.table["weight"]


def test_what_a_call_sets_is_the_use_s_own() -> None:
    layer = Keeping()
    use = ft.Frozen(layer)
    names = set(vars(layer))
    use(X)
    use(X)
    assert (layer.calls, layer.last, layer.table, set(vars(layer))) == (0, None, {}, names)
    assert (use.calls, bits(use.last)) == (2, bits(layer.linear(X)))


def test_what_a_call_has_made_of_the_weights_goes_when_they_change() -> None:
    layer = Keeping()
    use = ft.Frozen(layer)
    use(X)
    with torch.no_grad():
        layer.linear.weight.mul_(2)
    assert bits(use(X)) == bits(layer(X))


class Switching(nn.Module):
    """A layer with an adapter that a context manager switches off, as a policy with a reference has."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.adapter, self.is_on = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), True

    def __enter__(self) -> None:
        self.is_on = False

    def __exit__(self, *_: object) -> None:
        self.is_on = True

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.adapter(x) if self.is_on else self.base(x)


def test_a_reference_is_the_policy_without_its_adapter() -> None:
    policy = Switching()
    reference = ft.Frozen(policy)
    assert bits(reference(X)) == bits(policy(X))
    with policy:
        assert bits(reference(X)) == bits(policy.base(X))
    assert bits(reference(X)) == bits(policy(X))


@pytest.mark.parametrize("build", [Merging, Reparametrized, StemStill])
@pytest.mark.parametrize("mode", ["eval", "follow"])
def test_a_use_leaves_a_layer_with_a_train_of_its_own_alone(build: type[nn.Module], mode: str) -> None:
    layer = build()
    before, attributes = contents(layer), dict(vars(layer))
    use = ft.Frozen(layer, mode=mode)
    for call in ("train", "eval", "train"):
        getattr(use, call)()
        use(X)
        ft.frozen_call(layer, X)
    assert contents(layer) == before
    assert {name: value for name, value in vars(layer).items() if name != "_frostline_use"} == attributes


@pytest.mark.parametrize("build", [Merging, Reparametrized])
def test_it_computes_what_the_layer_computes_in_evaluation(build: type[nn.Module]) -> None:
    layer = build()
    use = ft.Frozen(layer)
    for _ in range(2):
        assert torch.allclose(use(X), layer(X), atol=1e-5)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(1.5)
    layer.eval()
    assert bits(use(X)) == bits(layer(X))
    layer.train()
    assert torch.allclose(use(X), layer(X), atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # a graph break
def test_compiled_it_computes_with_new_weights() -> None:
    layer = Reparametrized()
    model = nn.Sequential(nn.Linear(4, 4), ft.Frozen(layer))
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        assert torch.allclose(compiled(X), layer(model[0](X)), atol=1e-5)
        with torch.no_grad():
            layer.first.weight.mul_(2)


def test_a_train_set_on_the_instance_of_a_layer() -> None:
    layer = nn.Sequential(nn.BatchNorm1d(4))
    layer.train = stay.__get__(layer)
    use = ft.Frozen(layer)
    assert bits(use(X)) == bits(nn.BatchNorm1d(4).eval()(X))
    assert layer[0].training
