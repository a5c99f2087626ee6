"""A line behind a module that is named: the model itself runs, in two parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline.torch._line.line import frostline
from only_torch.bits import contents, gradients, moved
from only_torch.line.lined import Net, batch, both_ways, crossing, frozen, outputs, small, step

PLACES = {"resnet18": "layer2", "vit": "blocks.1", "bert": "layer.1", "llama": "layers.1", "lstm": "embed"}
SINGLE = dict.fromkeys(PLACES, 1) | {"resnet18": 2}
"""One sample, or what batch norm takes where it is left with one value of each."""


@pytest.mark.parametrize("name", PLACES)
def test_both_parts_are_the_model_bit_for_bit_for_any_number_of_samples(name: str) -> None:
    model, (x,) = frozen(name)
    before = contents(model)
    line = frostline(model, x, at=PLACES[name])
    assert moved(before, model) == set()
    assert [path for path, _ in crossing(line)] == [PLACES[name]]
    for samples in (len(x), 5, SINGLE[name]):
        want, got = both_ways(model, line, batch(x, samples))
        assert outputs(got) == outputs(want)


def test_it_is_the_line_that_a_trace_finds() -> None:
    model, (x,) = frozen("resnet18")
    named, found = frostline(model, x, at="layer2"), frostline(model, x)
    assert (named.boundary, named.flops) == (found.boundary, found.flops)
    assert outputs(named.below(x)) == outputs(found.below(x))


@pytest.mark.parametrize("name", ["resnet18", "bert"])
def test_it_trains_as_the_model_does(name: str) -> None:
    model, (x,) = frozen(name)
    twin = copy.deepcopy(model)
    line = frostline(model, x, at=PLACES[name])
    mine, its = torch.optim.AdamW(line.above.parameters()), torch.optim.AdamW(ft.trainable(twin).values())
    for seed in range(3):
        features = line.below(x)
        torch.manual_seed(seed)
        step(model, mine, line.above(*features))
        torch.manual_seed(seed)
        step(twin, its, twin(x))
        assert gradients(model) == gradients(twin)
    assert contents(model) == contents(twin)


class Deciding(Net):
    """What no trace follows, on both sides of the line."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        self.steps = int(features.sum() > 0) + 1
        for _ in range(self.steps):
            features = self.neck(features)
        return self.head(features)


def test_what_is_above_may_decide_by_values() -> None:
    torch.manual_seed(0)
    model = Deciding()
    ft.freeze(model, "body")
    line = frostline(model, torch.randn(3, 4), at="body")
    for sign in (-1, 1):
        want, got = both_ways(model, line, sign * torch.randn(3, 4))
        assert outputs(got) == outputs(want)


class Sided(Net):
    """The body gives a dict; its norm is used on both sides; a bias that depends on no sample is added above."""

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(8) * self.body[1].weight
        features = Pairing.of(self)(self.body[1](self.body[0](x)))
        return self.head(self.neck(self.body[1](features["first"]) + features["second"] + places))


class Pairing(nn.Module):
    """Two of one."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"first": x.relu(), "second": x.tanh()}

    @staticmethod
    def of(model: nn.Module) -> nn.Module:
        return model.body[3]


def test_several_values_may_cross_and_modules_may_be_used_on_both_sides() -> None:
    torch.manual_seed(0)
    model = Sided()
    model.body[3] = Pairing()
    ft.freeze(model, "body")
    line = frostline(model, torch.randn(3, 4), at="body.3")
    assert crossing(line) == [("body.3:0", (8,)), ("body.3:1", (8,))]
    for _ in range(2):
        want, got = both_ways(model, line, torch.randn(5, 4))
        assert outputs(got) == outputs(want)
    assert set(line.above.state_dict()) >= {"body.1.weight", "neck.0.weight", "head.bias"}
    assert "body.0.weight" not in line.above.state_dict()


def test_modules_below_are_not_called_again_above() -> None:
    model, x = small()
    line = frostline(model, x, at="body")
    features = line.below(x)
    calls = []
    for module in model.modules():
        module.register_forward_hook(lambda module, args, out: calls.append(type(module).__name__))
    line.above(*features)
    assert calls == ["Sequential", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Sequential", "Linear", "Net"]


def test_a_fingerprint_is_of_the_modules_below() -> None:
    model, x = small()
    line = frostline(model, x, at="body")
    first = line.fingerprint()
    assert set(line.tensors) == {name for name in model.state_dict() if name.startswith("body")}
    with torch.no_grad():
        model.neck[0].weight.add_(1)
        assert line.fingerprint() == first
        model.body[0].bias.add_(1)
    assert line.fingerprint() != first


def test_forwards_are_put_back() -> None:
    model, x = small()
    before = [vars(module).get("forward") for module in model.modules()]
    line = frostline(model, x, at="body")
    features = line.below(x)
    model.head.register_forward_hook(boom)
    with pytest.raises(RuntimeError, match="boom"):
        line.above(*features)
    assert [vars(module).get("forward") for module in model.modules()] == before


def boom(module: nn.Module, args: object, output: object) -> None:
    raise RuntimeError("boom")
