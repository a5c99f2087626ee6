"""A frozen use and a held module notice changes deep inside, between two calls (L6, L7)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft

X = torch.tensor([[1.0, 2.0]])


class Deep(nn.Module):
    """Adds up what it has: most registries of it are empty at first."""

    gain = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.leaf = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.leaf(x @ self.weight) * self.gain
        for tensor in (*self.leaf._parameters.values(), *self.leaf._buffers.values()):
            out = out + tensor
        for child in self.leaf._modules.values():
            out = child(out)
        return out


def layer_and(way: Callable[[nn.Module], nn.Module]) -> tuple[Any, nn.Module]:
    layer = nn.Sequential(nn.Sequential(Deep()))
    called = way(layer)
    for _ in range(3):
        assert called(X).tolist() == [[7.0, 10.0]]
    return layer[0][0], called


def use(layer: nn.Module) -> nn.Module:
    return ft.Frozen(layer)


def held(layer: nn.Module) -> nn.Module:
    ft.freeze(layer)
    return layer


def give_other_data(deep: Any) -> None:
    deep.weight.data = deep.weight.data * 10


def give_transposed_data_at_the_same_place(deep: Any) -> None:
    deep.weight.data = deep.weight.data.t()


def replace_a_parameter(deep: Any) -> None:
    deep.weight = nn.Parameter(deep.weight.detach() * 10)


def replace_a_parameter_by_an_equal_one_and_write_it(deep: Any) -> None:
    deep.weight = nn.Parameter(deep.weight.detach().clone())
    deep.weight.data.mul_(10)


def write_in_place(deep: Any) -> None:
    deep.weight.data.mul_(10)


def add_a_parameter(deep: Any) -> None:
    deep.leaf.shift = nn.Parameter(torch.tensor([5.0, 5.0]), requires_grad=False)


def add_a_buffer(deep: Any) -> None:
    deep.leaf.register_buffer("shift", torch.tensor([5.0, 5.0]))


def add_a_child(deep: Any) -> None:
    deep.leaf.child = nn.Upsample(scale_factor=1.0)
    deep.leaf.child.forward = lambda x: x * 2


def replace_a_child(deep: Any) -> None:
    deep.leaf = nn.ReLU()
    deep.weight.data.neg_()


def add_a_hook(deep: Any) -> None:
    deep.leaf.register_forward_hook(lambda module, args, out: out * 2)


def set_an_attribute(deep: Any) -> None:
    deep.gain = 3.0


CHANGES = {
    give_other_data: [[70.0, 100.0]],
    give_transposed_data_at_the_same_place: [[5.0, 11.0]],
    replace_a_parameter: [[70.0, 100.0]],
    replace_a_parameter_by_an_equal_one_and_write_it: [[70.0, 100.0]],
    write_in_place: [[70.0, 100.0]],
    add_a_parameter: [[12.0, 15.0]],
    add_a_buffer: [[12.0, 15.0]],
    add_a_child: [[14.0, 20.0]],
    replace_a_child: [[0.0, 0.0]],
    add_a_hook: [[14.0, 20.0]],
    set_an_attribute: [[21.0, 30.0]],
}


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
@pytest.mark.parametrize("way", [use, held])
def test_the_next_call_sees_it(way: Callable[[nn.Module], nn.Module], change: Callable[[Any], None]) -> None:
    deep, called = layer_and(way)
    change(deep)
    assert [called(X).tolist() for _ in range(2)] == [CHANGES[change]] * 2


@pytest.mark.parametrize("way", [use, held])
def test_two_changes_one_after_the_other(way: Callable[[nn.Module], nn.Module]) -> None:
    deep, called = layer_and(way)
    add_a_buffer(deep)
    assert called(X).tolist() == [[12.0, 15.0]]
    del deep.leaf.shift
    assert called(X).tolist() == [[7.0, 10.0]]
    deep.leaf.register_buffer("shift", torch.tensor([6.0, 6.0]))
    assert called(X).tolist() == [[13.0, 16.0]]
    deep.leaf.shift = torch.tensor([7.0, 7.0])
    assert called(X).tolist() == [[14.0, 17.0]]


class Counting(nn.Module):
    """Writes each buffer of its child; the child has none at first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.leaf = nn.Parameter(torch.ones(2)), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for tensor in self.leaf._buffers.values():
            tensor.data.add_(1)
        return x * self.weight


@pytest.mark.parametrize("way", [use, held])
def test_a_buffer_that_comes_later_is_kept_still(way: Callable[[nn.Module], nn.Module]) -> None:
    layer = Counting()
    called = way(layer)
    called(X)
    layer.leaf.register_buffer("count", torch.zeros(1))
    for _ in range(3):
        called(X)
    assert layer.leaf.count.tolist() == [0.0]


def test_modes_and_gradients_that_somebody_sets_deep_inside_a_use() -> None:
    layer = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    frozen = ft.Frozen(layer)
    frozen(X)
    inner: Any = frozen[0]
    inner[1].training = True
    inner[0].weight.requires_grad_(True)
    x = X.clone().requires_grad_()
    outputs = [frozen(x) for _ in range(5)]
    assert all(torch.equal(out, layer[0][0](X)) for out in outputs)
    outputs[-1].sum().backward()
    assert inner[0].weight.grad is None
    assert not inner[1].training
