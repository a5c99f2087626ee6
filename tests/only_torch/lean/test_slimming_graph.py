"""What slimming finds in a graph, whoever made it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

import frostline.torch as ft
from only_torch.bits import bits
from only_torch.lean.slimmed import ALL, PICTURE, Through, agree, block, frozen_block, slimmed, slimming


class Pair(NamedTuple):
    one: Tensor
    two: Tensor


@dataclasses.dataclass
class Record:
    one: Tensor
    rest: Any = None


class Packed(nn.Module):
    """Puts its result into something."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.pack, self.inner = pack, frozen_block()

    def forward(self, x: Tensor) -> Any:
        x = F.conv2d(x, self.inner[0].weight)
        return self.pack(F.conv2d(F.relu(x), self.inner[3].weight))


PACKS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "tuple": (lambda y: (1, y), lambda out: out[1]),
    "dict": (lambda y: {"y": [y]}, lambda out: out["y"][0]),
    "named tuple": (lambda y: Pair(y, y), lambda out: out.two),
    "dataclass": (lambda y: Record(1, {"y": y}), lambda out: out.rest["y"]),  # type: ignore[arg-type]
    "transformers": (lambda y: BaseModelOutput(last_hidden_state=y), lambda out: out.last_hidden_state),
}


@pytest.mark.parametrize("name", PACKS)
def test_a_result_is_found_in_whatever_it_is_packed(name: str) -> None:
    pack, unpacked = PACKS[name]
    model = Packed(pack)
    x = PICTURE.clone().requires_grad_()
    expected = torch.autograd.grad(unpacked(model(x)).sum(), x)[0]
    with slimming(model):
        y = unpacked(model(x))
    assert slimmed(y) == {"ConvolutionBackward0.input": 2, "ReluBackward0.result": 1}
    assert bits(torch.autograd.grad(y.sum(), x)[0]) == bits(expected)


def test_functional_code_in_the_models_own_forward() -> None:
    weight = torch.randn(4, 3, 3, 3)
    found = agree(Through(lambda x: F.max_pool2d(F.relu_(F.conv2d(x, weight)), 2)), PICTURE)
    assert found == {
        "ConvolutionBackward0.input": 1,
        "ReluBackward0.result": 1,
        "MaxPool2DWithIndicesBackward0.self": 1,
        "MaxPool2DWithIndicesBackward0.result1": 1,
    }


def test_a_layer_used_twice() -> None:
    layer = block().requires_grad_(False).eval()
    assert agree(nn.Sequential(layer, layer), PICTURE) == {name: 2 * count for name, count in ALL.items()}


def test_a_weight_that_trains_in_one_place_only() -> None:
    free = nn.Conv2d(3, 3, 1)
    assert agree(nn.Sequential(ft.Frozen(free), free), PICTURE) == {"ConvolutionBackward0.input": 1}


def test_a_frozen_use() -> None:
    assert agree(nn.Sequential(nn.Conv2d(3, 3, 1), ft.Frozen(block())), PICTURE) == ALL


def test_a_result_that_a_trainable_layer_keeps_is_not_kept_twice() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3).requires_grad_(False), nn.ReLU(), nn.Conv2d(4, 3, 3))
    assert agree(model, PICTURE) == {"ConvolutionBackward0.input": 1}


def test_a_result_that_a_product_keeps_is_not_kept_twice() -> None:
    pool = nn.AdaptiveAvgPool2d(1)
    model = Through(lambda x: (y := F.relu(x)) * pool(y).sigmoid(), nn.Conv2d(3, 3, 1).requires_grad_(False))
    assert agree(model, PICTURE) == {"ConvolutionBackward0.input": 1}


def test_two_activations_of_one_tensor() -> None:
    found = agree(Through(lambda x: F.relu6(F.relu(x)) * 2), PICTURE)
    assert found == {"ReluBackward0.result": 1, "HardtanhBackward0.self": 1}


def test_the_models_own_result_is_left_alone() -> None:
    assert agree(nn.Sequential(nn.Conv2d(3, 4, 3).requires_grad_(False), nn.ReLU()), PICTURE) == {
        "ConvolutionBackward0.input": 1
    }
