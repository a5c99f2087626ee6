"""No function of a layer leads from its frozen use back to it (L3); data given to a use reach the layer (L6)."""

import copy
import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline import UnsupportedError
from only_torch.bits import bits


class Calling(nn.Module):
    """Calls its child through the function that `make` returns."""

    def __init__(self, make: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.child = nn.Linear(2, 2)
        self.way = make(self.child)

    def forward(self, x: Tensor) -> Tensor:
        way = self.way["a"] if isinstance(self.way, dict) else self.way
        return way()(x) if isinstance(way, weakref.ReferenceType) else way(x)


def nested(child: nn.Module) -> Callable[[Tensor], Tensor]:
    def inner(x: Tensor) -> Tensor:
        return child(x)

    return lambda x: inner(x)


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "closure": lambda child: lambda x: child(x),
    "default argument": lambda child: lambda x, layer=child: layer(x),
    "in a dict": lambda child: {"a": lambda x: child(x)},
    "nested closure": nested,
    "partial": lambda child: functools.partial(lambda factor, x: child(x) * factor, 2),
    "weak reference": weakref.ref,
    "bound method": lambda child: child.forward,
    "decorated method": lambda child: torch.autocast("cpu", enabled=False)(child.forward),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_back(way: str) -> None:
    layer = Calling(WAYS[way])
    x = torch.ones(1, 2, requires_grad=True)
    ft.Frozen(layer)(x).sum().backward()
    assert x.grad is not None
    assert [p.grad for p in layer.parameters()] == [None, None]
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_compiled_forward_is_refused() -> None:
    layer = nn.Linear(2, 2)
    layer.forward = torch.compile(layer.forward, backend="eager")
    with pytest.raises(UnsupportedError) as caught:
        ft.Frozen(layer)
    assert str(caught.value).splitlines() == [
        "Frozen(layer), with a compiled forward, cannot be made: compiled code calls the layer itself.",
        "Compile what contains the frozen use: torch.compile(model).",
    ]


def test_layer_compiled_in_place_is_used_uncompiled() -> None:
    layer = nn.Linear(2, 2)
    layer.compile(backend="eager")
    ft.Frozen(layer)(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert [p.grad for p in layer.parameters()] == [None, None]


def test_data_given_to_a_use_reach_the_layer() -> None:
    layer = nn.Linear(2, 2)
    use = ft.Frozen(layer)
    nn.utils.vector_to_parameters(torch.arange(6.0), use.parameters())
    assert use(torch.ones(1, 2)).flatten().tolist() == [5.0, 10.0]
    assert layer(torch.ones(1, 2)).flatten().tolist() == [5.0, 10.0]
    assert copy.deepcopy(use)(torch.ones(1, 2)).flatten().tolist() == [5.0, 10.0]


def test_other_strides_at_the_same_address_are_seen() -> None:
    layer = nn.Linear(2, 2)
    use = ft.Frozen(layer)
    layer.weight.data = layer.weight.data.t()
    assert bits(use(torch.tensor([[1.0, 2.0]]))) == bits(layer(torch.tensor([[1.0, 2.0]])))


def test_slice_of_a_frozen_container_is_a_frozen_use() -> None:
    layer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    part = ft.Frozen(layer)[:1]
    assert isinstance(part, ft.Frozen)
    layer[0].double()
    assert part(torch.ones(1, 2, dtype=torch.float64)).shape == (1, 2)
