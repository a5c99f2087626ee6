"""A module with a ``train`` of its own is told when it is held and when it is released (L7, L10)."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from only_torch.bits import bits, contents, moved, training
from only_torch.foreign_layers import Merging, Reparametrized, StemStill, stay

X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.5, 1.0], [2.0, 2.5, -3.0, 0.5]])


def around(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.Linear(4, 2))


def test_an_adapter_is_merged_once_while_it_is_held() -> None:
    layer = Merging()
    model = around(layer)
    handle = ft.freeze(model, "[0]")
    assert (layer.merged, layer.told) == (True, [False])
    before = contents(layer)
    for call in ("train", "eval", "train"):
        getattr(model, call)()
        model(X)
    assert (layer.told, moved(before, layer)) == ([False], set())
    handle.undo()
    assert (layer.merged, layer.told, layer.training) == (False, [False, True], True)
    layer(X).sum().backward()
    assert layer.a.grad is not None


def test_an_adapter_that_is_to_evaluate_stays_merged() -> None:
    layer = Merging()
    model = around(layer).eval()
    weight = layer.weight.detach().clone()
    handle = ft.freeze(model, "[0]")
    handle.undo()
    assert (layer.told, torch.equal(layer.weight, weight)) == ([False], True)


def test_a_module_that_is_held_in_two_steps_is_told_once() -> None:
    model = around(Merging())
    inner = ft.freeze(model, "[0]")
    outer = ft.freeze(model)
    assert model[0].told == [False]
    inner.undo()
    assert model[0].told == [False]
    outer.undo()
    assert model[0].told == [False, True]


def test_a_cache_is_prepared_and_dropped() -> None:
    model = around(Reparametrized())
    expected = model(X)
    handle = ft.freeze(model, "[0]")
    assert model[0].kernel is not None
    assert torch.allclose(model.train()(X), expected, atol=1e-5)
    handle.undo()
    assert model[0].kernel is None


def test_undone_it_is_as_its_own_train_leaves_it() -> None:
    model = around(StemStill()).train()
    handle = ft.freeze(model, "[0]")
    model.train()
    assert training(model) == {"", "1"}
    handle.undo()
    assert training(model) == {"", "0", "0.body", "1"}


def test_undone_without_a_word_every_module_has_the_mode_that_it_had() -> None:
    model = around(StemStill()).train()
    model[0].body.eval()
    ft.freeze(model, "[0]").undo()
    assert training(model) == {"", "0", "1"}


def test_what_the_user_has_set_on_the_instance_stays() -> None:
    model = around(nn.BatchNorm1d(4))
    own = stay.__get__(model[0])
    model[0].train = own
    handle = ft.freeze(model, "[0]")
    assert vars(model[0])["train"] is own
    assert training(model.train()) == {"", "1"}
    handle.undo()
    assert vars(model[0])["train"] is own
    assert training(model) == {"", "0", "1"}  # where its own train has left it
    assert training(model.eval()) == {"0"}


def test_set_while_it_is_held_it_is_in_force_when_it_is_released() -> None:
    model = around(nn.BatchNorm1d(4))
    with ft.freeze(model, "[0]"):
        model[0].train = stay.__get__(model[0])
        assert training(model.train()) == {"", "1"}
    assert training(model.eval()) == {"0"}
    del model[0].train
    assert training(model.eval()) == set()


def test_following_it_is_told_what_its_parents_are_told() -> None:
    layer = StemStill()
    model = around(layer)
    ft.freeze(model, "[0]", mode="follow")
    assert training(model.train()) == {"", "0", "0.body", "1"}
    assert training(model.eval()) == set()


def test_a_train_that_fails_leaves_the_model_as_it_was() -> None:
    class Failing(nn.Linear):
        def train(self, mode: bool = True) -> nn.Module:
            if not mode:
                raise RuntimeError("not now")
            return super().train(mode)

    model = nn.Sequential(nn.BatchNorm1d(4), Failing(4, 4))
    with pytest.raises(RuntimeError, match="not now"):
        ft.freeze(model)
    assert training(model) == {"", "0", "1"}
    assert len(ft.trainable(model)) == 4
    assert [type(module) for module in model] == [nn.BatchNorm1d, Failing]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_held_and_can_be_released(copied) -> None:  # type: ignore[no-untyped-def]
    model = around(Merging())
    ft.freeze(model, "[0]")
    other = copied(model)
    other.train()
    assert (other[0].training, other[0].merged) == (False, True)
    ft.thaw(other, "[0]")
    assert (other[0].training, other[0].merged) == (True, False)
    assert (model[0].training, model[0].merged) == (False, True)


class Net(nn.Module):
    """Drops out in its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.drop, self.head = nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x)))


def test_a_new_head_makes_what_contains_it_follow() -> None:
    model = Net()
    handle = ft.freeze(model)
    model.head = nn.Linear(4, 3)
    assert training(model.train()) == {"", "drop", "head"}
    assert training(model.eval()) == set()
    assert training(model.train()) == {"", "drop", "head"}
    handle.undo()
    assert training(model.train()) == {"", "body", "drop", "head"}


def test_an_adapter_inside_makes_what_contains_it_follow() -> None:
    model = nn.Sequential(Net(), nn.Dropout(0.5))
    ft.freeze(model)
    model[0].body.register_parameter("adapter", nn.Parameter(torch.zeros(2)))
    assert training(model.train()) == {"", "0", "0.body", "0.drop", "1"}


def test_flags_that_somebody_has_set_are_followed_and_taken_back() -> None:
    model = Net()
    ft.freeze(model)
    model.requires_grad_(True)
    assert training(model.train()) == {"", "body", "drop", "head"}
    model.requires_grad_(False)
    assert training(model.train()) == set()
    assert bits(model(X)) == bits(model(X))
