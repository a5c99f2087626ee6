"""Lists, tuples, dicts and iterators of modules and parameters are selectors of their members."""

from collections.abc import Callable

import pytest
from torch import nn

import frostline.torch as ft
from frostline import NoMatchError, own
from frostline.errors import ConstantError, SelectorError


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))


BIASES = {"0.bias", "1.bias", "2.bias"}
LISTS: list[tuple[str, Callable[[nn.Sequential], object], set[str]]] = [
    ("list", lambda net: [net[0], net[1]], {"0.weight", "0.bias", "1.weight", "1.bias"}),
    ("tuple", lambda net: (net[1], net[2].bias), {"1.weight", "1.bias", "2.bias"}),
    ("dict", lambda net: {"a": net[0].bias, "b": net[2].bias}, {"0.bias", "2.bias"}),
    ("values", lambda net: dict(net[2].named_parameters()).values(), {"2.weight", "2.bias"}),
    ("iterator", lambda net: net[2].parameters(), {"2.weight", "2.bias"}),
    ("comprehension", lambda net: (p for n, p in net.named_parameters() if n.endswith("bias")), BIASES),
    ("nested", lambda net: [[net[0].bias], (net[1].bias, [net[2].bias])], BIASES),
]


@pytest.mark.parametrize(("make", "paths"), [row[1:] for row in LISTS], ids=[row[0] for row in LISTS])
def test_the_members_of_a_list_are_selected(make: Callable[[nn.Sequential], object], paths: set[str]) -> None:
    net = model()
    handle = ft.freeze(net, make(net))
    assert ft.frozen(net).keys() == paths
    handle.undo()
    assert not ft.frozen(net)
    assert set(ft.select(net, make(net)).paths) == paths
    ft.freeze(net)
    ft.thaw(net, make(net))
    assert ft.trainable(net).keys() == paths


def test_a_list_among_other_selectors() -> None:
    net = model()
    ft.freeze(net, [net[0], net[2]], "!**.bias", net[1])
    assert ft.trainable(net).keys() == {"0.bias", "2.bias"}


@pytest.mark.parametrize("empty", [[], (), {}, iter(())], ids=["list", "tuple", "dict", "iterator"])
def test_an_empty_list_is_nothing_and_never_the_whole_model(empty: object) -> None:
    net = model()
    with pytest.raises(NoMatchError):
        ft.freeze(net, empty)
    ft.freeze(net, [], allow_empty=True)
    assert not ft.frozen(net)


def test_a_member_that_is_not_of_the_model_is_an_error() -> None:
    net = model()
    with pytest.raises(NoMatchError) as caught:
        ft.freeze(net, [net[0], nn.Linear(5, 6)])
    assert str(caught.value).startswith("<Linear> matches none of the 6 parameters.")
    assert not ft.frozen(net)


@pytest.mark.parametrize("wrong", [["0", "1"], [1], 5, [None]], ids=str)
def test_a_list_of_something_else_is_an_error(wrong: object) -> None:
    with pytest.raises(SelectorError):
        ft.freeze(model(), wrong)


def test_a_parameter_in_a_list_is_named_by_itself() -> None:
    """A constant that is named by itself is meant, and a module names many at once."""
    net = model()
    net[0].bias.requires_grad_(False)
    with pytest.raises(ConstantError):
        ft.thaw(net, own("0") & own("*") - own("1") - own("2"), "!0.weight")
    ft.thaw(net, [net[0].bias])
    assert net[0].bias.requires_grad


def test_own_parameters_are_those_of_recurse_false() -> None:
    attention = nn.MultiheadAttention(4, 2)
    net = nn.ModuleDict({"body": attention, "head": nn.Linear(4, 2)})
    ft.freeze(net, own("body"))
    assert {id(p) for p in ft.frozen(net).values()} == {id(p) for p in attention.parameters(recurse=False)}
    assert ft.frozen(net).keys() == {"body.in_proj_weight", "body.in_proj_bias"}
