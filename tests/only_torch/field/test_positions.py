"""An index of a pattern is for what Python indexes, and for one name with numbers."""

from collections import OrderedDict

import pytest
from torch import nn

import frostline.torch as ft
from frostline import FrostlineError, NoMatchError, UnsupportedError


class Net(nn.Module):
    """A model whose attributes have no order that anybody would count."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        self.embed = nn.Embedding(9, 2)
        self.gains = nn.ParameterList([nn.Parameter(nn.Linear(3, 1).weight.detach()) for _ in range(3)])
        self.attention = nn.MultiheadAttention(4, 2)
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize("selector", ["[0]", "[-1]", "[:-1]", "[:]", "attention[0]", "backbone[1][0]"])
def test_attributes_have_no_positions(selector: str) -> None:
    model = Net()
    with pytest.raises(NoMatchError):
        ft.freeze(model, selector)
    assert len(ft.trainable(model)) == 14


@pytest.mark.parametrize(
    "selector", ["head[0]", "head[:1]", "embed[:5]", "embed.weight[0]", "gains[0][1]", "backbone[0][0]"]
)
def test_an_index_on_parameters_means_rows(selector: str) -> None:
    model = Net()
    with pytest.raises(UnsupportedError):
        ft.freeze(model, selector)
    assert len(ft.trainable(model)) == 14


def test_the_error_lists_the_children() -> None:
    with pytest.raises(NoMatchError) as caught:
        ft.freeze(Net(), "[0]")
    assert caught.value.closest == ("backbone", "embed", "gains", "attention", "head")


def test_lists_have_the_positions_of_python() -> None:
    model = Net()
    ft.freeze(model, "backbone[-1].bias", "gains[1:]")
    assert ft.frozen(model).keys() == {"backbone.2.bias", "gains.1", "gains.2"}


def test_a_sequential_with_names_counts_its_members() -> None:
    named = OrderedDict(stem=nn.Linear(2, 3), act=nn.ReLU(), body=nn.Linear(3, 4), head=nn.Linear(4, 5))
    model = nn.Sequential(named)
    ft.freeze(model, "[:3]")
    assert ft.trainable(model).keys() == {"head.weight", "head.bias"}
    with pytest.raises(NoMatchError):
        ft.freeze(model, "[1]")


def test_a_subclass_of_a_list_has_positions_beside_parameters_of_its_own() -> None:
    class Scaled(nn.ModuleList):
        def __init__(self) -> None:
            super().__init__([nn.Linear(2, 3), nn.Linear(3, 4)])
            self.scale = nn.Parameter(nn.Linear(1, 1).weight.detach())

    model = Scaled()
    ft.freeze(model, "[0]")
    assert ft.frozen(model).keys() == {"0.weight", "0.bias"}


@pytest.mark.parametrize("name", ["layer_{}", "layer{}", "{}"])
def test_a_mapping_of_numbers_is_sliced_by_the_numbers(name: str) -> None:
    members = {name.format(number): nn.Linear(1, 1, bias=False) for number in sorted(range(12), key=str)}
    model = nn.ModuleDict(members)
    ft.freeze(model, "[:-2]")
    assert ft.trainable(model).keys() == {f"{name.format(number)}.weight" for number in (10, 11)}


def test_a_mapping_of_names_is_not_sliced_by_the_alphabet() -> None:
    model = nn.ModuleDict({"stem": nn.Linear(1, 2), "body": nn.Linear(2, 3), "head": nn.Linear(3, 4)})
    with pytest.raises(FrostlineError, match=r"  stem\n  body\n  head"):
        ft.freeze(model, "[:-1]")
