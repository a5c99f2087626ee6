"""The whole text of every error that the PyTorch front end raises, and that none of them changes the model."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import FrostlineError, MovedError
from frostline.errors import PinnedError, WrappedError
from only_torch.field.evidence import state
from only_torch.refused import TEXTS, WRONG_TYPES, net, uncopyable

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


each_text = pytest.mark.parametrize(("name", "fail", "text"), TEXTS, ids=[name for name, *_ in TEXTS])


def _lines(fail: Callable[[], object], kind: type[Exception]) -> list[str]:
    with pytest.raises(kind) as caught:
        fail()
    return str(caught.value).split("\n")


@each_text
def test_whole_text(name: str, fail: Callable[[nn.Module], object], text: list[str]) -> None:
    model = net()
    assert _lines(lambda: fail(model), FrostlineError) == text


@pytest.mark.parametrize(("name", "fail", "text"), WRONG_TYPES, ids=[name for name, *_ in WRONG_TYPES])
def test_whole_text_of_a_wrong_type(name: str, fail: Callable[[], object], text: list[str]) -> None:
    assert _lines(fail, TypeError) == text


def _worn() -> nn.Module:
    """A model with gradients, with a claim and a hold, and with a part in evaluation mode."""
    model = net()
    model(torch.randn(3, 2)).sum().backward()
    ft.freeze(model, "trunk[1]")
    model.head.eval()
    return model


@pytest.mark.parametrize(("name", "fail", "text"), TEXTS[:-1], ids=[name for name, *_ in TEXTS[:-1]])
def test_the_model_is_as_it_was(name: str, fail: Callable[[nn.Module], object], text: list[str]) -> None:
    """L12: raised before anything was changed. (The last row freezes by hand, which is no error.)"""
    model = _worn()
    before = state(model)
    with pytest.raises(FrostlineError):
        fail(model)
    assert state(model) == before


def test_the_comparison_sees_each_kind_of_change() -> None:
    """The negative control of the test above."""
    model = _worn()
    before = state(model)
    handle = ft.freeze(model, "trunk[0]")
    now = state(model)
    assert {part for part in before if now[part] != before[part]} == {"flags", "gradients", "modes", "attributes"}
    handle.undo()
    model.head.register_forward_hook(print)
    with torch.no_grad():
        model.head.weight.add_(1)
    now = state(model)
    assert now["bytes"] != before["bytes"]
    assert now["hooks"] != before["hooks"]


def test_a_layer_that_cannot_be_copied_is_as_it_was() -> None:
    layer = uncopyable()
    before = state(layer)
    with pytest.raises(FrostlineError):
        ft.Frozen(layer)
    assert state(layer) == before


@each_text
def test_errors_survive_pickling(name: str, fail: Callable[[nn.Module], object], text: list[str]) -> None:
    with pytest.raises(FrostlineError) as caught:
        fail(net())
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert str(again) == str(caught.value)


def test_errors_carry_their_data() -> None:
    with pytest.raises(PinnedError) as caught:
        ft.thaw(net(), "use", "use.weight")
    assert caught.value.selectors == "thaw(model, 'use', 'use.weight')"
    assert caught.value.paths == ("use.bias", "use.weight")
    assert issubclass(PinnedError, ValueError)
    assert issubclass(WrappedError, RuntimeError)
    assert issubclass(MovedError, RuntimeError)
