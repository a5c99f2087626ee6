"""The limit: what is not read is not needed, byte by byte; and who makes a step dear."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from benchmarks.zoo import ZOO
from torch import Tensor, nn

import frostline.torch as ft
from frostline.torch._autograd.reads import KNOWN, LIMIT_RULES, RULES
from frostline.torch._cost.limit import graph
from only_torch.bits import bits


def picture(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 4, 8, 8)), requires_grad=True)


# A frozen layer, what it saves of a picture of 512 numbers, and the least that the picture's gradient needs.
LAYERS: dict[str, tuple[nn.Module, int, int]] = {
    "convolution": (nn.Conv2d(4, 4, 3), 2048, 0),
    "transposed convolution": (nn.ConvTranspose2d(4, 4, 3), 2048, 0),
    "batch norm with fixed statistics": (nn.BatchNorm2d(4), 2048, 0),
    "relu": (nn.ReLU(), 2048, 64),
    "leaky relu": (nn.LeakyReLU(), 2048, 64),
    "relu6": (nn.ReLU6(), 2048, 64),
    "hard sigmoid": (nn.Hardsigmoid(), 2048, 64),
    "prelu": (nn.PReLU(4), 2048, 64),
    # Indices of eight bytes beside the picture; two bits for each of 128 windows of four.
    "max pooling": (nn.MaxPool2d(2), 2048 + 1024, 32),
    "adaptive max pooling": (nn.AdaptiveMaxPool2d(2), 2048 + 256, 16),
    "average pooling": (nn.AvgPool2d(2), 2048, 0),
    # What a coin decided, a seed decides again.
    "gelu": (nn.GELU(), 2048, 2048),
    "sigmoid": (nn.Sigmoid(), 2048, 2048),
    "linear": (nn.Linear(8, 8), 0, 0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_frozen_layer_needs_at_least(name: str) -> None:
    layer, saved, least = LAYERS[name]
    if any(True for _ in layer.parameters()):
        ft.freeze(layer)
    found = ft.cost(layer, picture())
    assert (found.now.saved_bytes, found.limit.saved_bytes) == (saved, least)


def test_dropout_needs_a_seed() -> None:
    found = ft.cost(nn.Dropout(0.5), picture())
    assert (found.now.saved_bytes, found.limit.saved_bytes) == (2048, 0)


def test_a_trainable_layer_needs_its_input_and_the_mask_can_be_read_off_it() -> None:
    frozen, trained = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    ft.freeze(frozen)
    found = ft.cost(nn.Sequential(frozen, nn.ReLU(), trained), picture())
    assert (found.now.saved_bytes, found.limit.saved_bytes) == (2048 + 2048, 2048)


def test_what_is_below_the_frost_line_needs_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    ft.freeze(model, "0")
    found = ft.cost(model, torch.randn(2, 4, 8, 8))
    assert (found.now.saved_bytes, found.limit.saved_bytes) == (2048, 2048)


@contextmanager
def garbled(unread: Callable[[int], set[int]]) -> Iterator[None]:
    """Within this context backward finds other numbers in tensors that it is said not to read."""
    kept: list[tuple[Tensor, int]] = []

    def pack(tensor: Tensor) -> int:
        kept.append((tensor, torch.autograd._get_sequence_nr() - 1))
        return len(kept) - 1

    def unpack(position: int) -> Tensor:
        tensor, number = kept[position]
        is_unread = tensor.untyped_storage()._cdata in unread(number)
        return torch.full_like(tensor, 77) if is_unread and tensor.is_floating_point() else tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


def wanted_of(node: Any) -> Callable[[int], bool]:
    return lambda edge: node.reaches[edge] is not None and node.reaches[edge] >= 0


DROPPED = [name for name, (_, saved, least) in LAYERS.items() if least < saved and "relu" not in name]


@pytest.mark.parametrize("name", [name for name in DROPPED if name not in {"hard sigmoid", "prelu"}])
def test_a_gradient_is_bitwise_the_same_whatever_is_in_what_is_not_read(name: str) -> None:
    layer = LAYERS[name][0].eval().requires_grad_(False)
    x = picture()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    unread: dict[int, set[int]] = {}
    with garbled(lambda number: unread.get(number, set())):
        output = layer(x)
    for number, node in graph(output, {id(x): 0}).items():
        rule = KNOWN.get(type(node.function))
        reads = {} if rule is None else rule.tensors
        names = [each for each, read in reads.items() if read(node.function, wanted_of(node), None).bits == 0]
        unread[number] = {getattr(node.function, f"_saved_{each}").untyped_storage()._cdata for each in names}
    assert any(unread.values())
    # The square is made outside, so that what it saves is right.
    (found,) = torch.autograd.grad(output, x, 2 * layer(x).detach())
    assert bits(found) == bits(expected)


def test_every_rule_is_of_a_node_that_there_is(recwarn: Any) -> None:
    """A rule for a name that PyTorch does not know would never be used. Those of other devices stay unseen here."""
    elsewhere = {"CudnnBatchNormBackward0", "MiopenBatchNormBackward0"}
    # They are seen in the walk through all operators, in autograd/test_operators.py.
    walked = {name for rule in LIMIT_RULES for name in rule.nodes} - {"AbsBackward0"}
    small, deep = picture(), picture(2, 4, 8, 8, 8)
    made = [
        F.conv2d(small, torch.ones(1, 4, 1, 1)),
        F.batch_norm(small, torch.zeros(4), torch.ones(4)),
        F.relu(small),
        F.threshold(small, 0.5, 0.1),
        F.leaky_relu(small),
        F.hardtanh(small),
        F.hardsigmoid(small),
        small.clamp(torch.zeros(()), torch.ones(())),
        small.clamp(0, 1),
        small.clamp_min(0),
        small.clamp_max(1),
        small.abs(),
        F.prelu(small, torch.ones(4)),
        F.avg_pool2d(small, 2),
        F.avg_pool3d(deep, 2),
        F.adaptive_avg_pool2d(small, 2),
        F.adaptive_avg_pool3d(deep, 2),
        F.max_pool2d(small, 2),
        F.max_pool3d(deep, 2),
        F.adaptive_max_pool2d(small, 2),
        F.adaptive_max_pool3d(deep, 2),
        F.fractional_max_pool2d(small, 2, 4),
        F.fractional_max_pool3d(deep, 2, 4),
        F.leaky_relu(small * 1, inplace=True),
        F.threshold(small * 1, 0.5, 0.1, inplace=True),
        small * small,
        *(F.pad(small, (1, 1, 1, 1), mode) for mode in ("reflect", "replicate")),
        *(F.pad(small[0], (1, 1), mode) for mode in ("reflect", "replicate")),
        *(F.pad(deep, (1, 1, 1, 1, 1, 1), mode) for mode in ("reflect", "replicate")),
    ]
    seen = {node.function.name() for each in made for node in graph(each, {}).values()}
    assert {name for rule in RULES for name in rule.nodes} - seen == elsewhere | walked


def test_the_culprit_is_named_with_its_fix() -> None:
    model, example = ZOO["resnet18"](small=True)
    ft.freeze(model, "**", "!conv1", "!bn1", "!fc")
    found = ft.cost(model, *example)
    culprit = found.culprit
    assert culprit is not None
    assert culprit.paths == ("conv1.weight", "bn1.weight", "bn1.bias")
    assert culprit.fix == 'ft.freeze(model, "conv1", "bn1")'
    assert culprit.flops == found.now.flops
    assert 1.5 < culprit.ratio < 2.5
    ft.freeze(model, "conv1", "bn1")
    without = ft.cost(model, *example)
    assert (without.now.flops, without.culprit) == (culprit.flops_without, None)
    assert str(culprit).splitlines()[-1] == culprit.fix


def test_one_bias_below_is_enough_to_be_a_culprit() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))
    ft.freeze(model, "**", "!0.bias", "!5")
    culprit = ft.cost(model, torch.ones(3, 8)).culprit
    assert culprit is not None
    # 384 operations for each product: 6 forward, 5 back to the bias, 4 of them through frozen layers; one weight.
    assert (culprit.chain_flops, culprit.flops, culprit.flops_without) == (4 * 384, 12 * 384, 7 * 384)
    assert (culprit.paths, culprit.fix) == (("0.bias",), 'ft.freeze(model, "0")')


@pytest.mark.parametrize("selectors", [(), ("layers[:8]",), ("layers[2:]",), ("**.weight",), ("layers[::2]",)])
def test_there_is_no_culprit_where_nothing_would_be_won(selectors: tuple[str, ...]) -> None:
    """Nothing frozen, a prefix, a suffix, biases alone, every other layer."""
    model = nn.Sequential()
    model.layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(12)))
    if selectors:
        ft.freeze(model, *selectors)
    assert ft.cost(model, torch.ones(3, 8)).culprit is None


def test_attention_between_trained_weights_is_no_culprit() -> None:
    """The gradient passes through products without weights, and through nothing that is frozen."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.attention(x, x, x)

    assert ft.cost(Attending(), torch.ones(5, 2, 16)).culprit is None
