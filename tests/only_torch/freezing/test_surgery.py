"""Surgery on a model after freezing: claims follow their parameter, are found, and can be undone (L14)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import frostline.torch as ft
from frostline.errors import UnsupportedError
from only_torch.bits import contents, moved, training
from only_torch.field.evidence import state


class Linear(nn.Linear):
    """Stands for what a conversion puts in the place of a linear layer: another module with the same parameters."""

    @classmethod
    def of(cls, layer: nn.Linear) -> Linear:
        made = cls(layer.in_features, layer.out_features)
        made.weight, made.bias = layer.weight, layer.bias
        made.register_buffer("observed", torch.zeros(()))
        return made

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.observed += 1
        return super().forward(x)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))


def pruned(model: nn.Sequential) -> None:
    prune.l1_unstructured(model[0], "weight", 0.5)


def weight_normed(model: nn.Sequential) -> None:
    parametrizations.weight_norm(model[0])


def spectrally_normed(model: nn.Sequential) -> None:
    parametrizations.spectral_norm(model[0])


def orthogonal(model: nn.Sequential) -> None:
    parametrizations.orthogonal(model[0])


def old_spectrally_normed(model: nn.Sequential) -> None:
    nn.utils.spectral_norm(model[0])


def old_weight_normed(model: nn.Sequential) -> None:
    with pytest.warns(FutureWarning, match="is deprecated"):
        nn.utils.weight_norm(model[0])


def converted(model: nn.Sequential) -> None:
    model[0] = Linear.of(model[0])


SURGERY = [
    pruned,
    weight_normed,
    spectrally_normed,
    orthogonal,
    old_spectrally_normed,
    old_weight_normed,
    converted,
]
each_surgery = pytest.mark.parametrize("operate", SURGERY, ids=[operate.__name__ for operate in SURGERY])


def outside(model: nn.Module) -> set[str]:
    """The parameters that train, but for those of the head."""
    return {name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("1.")}


def train(model: nn.Module) -> set[str]:
    before = contents(model)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    for _ in range(2):
        model.train()(torch.ones(3, 4)).sum().backward()
        optimizer.step()
    return moved(before, model)


@each_surgery
class TestAfterFreezing:
    def test_it_is_found(self, operate: Callable[[nn.Module], None]) -> None:
        model = net()
        ft.freeze(model, "[0]")
        operate(model)
        assert "moved-claims" in {finding.kind for finding in ft.check(model)}

    def test_freezing_again_is_a_cure(self, operate: Callable[[nn.Module], None]) -> None:
        model = net()
        ft.freeze(model, "[0]")
        operate(model)
        ft.freeze(model, "[0]")
        assert ft.check(model) == []
        assert train(model) == {"1.weight", "1.bias"}

    def test_the_next_word_follows_it(self, operate: Callable[[nn.Module], None]) -> None:
        """The tensors are frozen, and what has them now is held."""
        model = net()
        ft.freeze(model, "[0]")
        operate(model)
        ft.freeze(model, "[1].bias")
        assert training(model.train()) == {"", "1"}
        assert train(model) == {"1.weight"}

    def test_a_plan_that_is_not_told_follows_it(self, operate: Callable[[nn.Module], None]) -> None:
        model = net()
        ft.freeze(model, "[0]")
        operate(model)
        ft.follow(model, ft.plan(model))
        assert train(model) <= {"1.weight", "1.bias"} | outside(model)

    def test_undo_finds_the_tensors(self, operate: Callable[[nn.Module], None]) -> None:
        model, plain = net(), net()
        handle = ft.freeze(model, "[0]")
        operate(model)
        operate(plain)
        handle.undo()
        assert ft.frozen(model) == {}
        assert [vars(m).keys() for m in model.modules()] == [vars(m).keys() for m in plain.modules()]
        assert training(model.train()) == training(plain)
        handle.undo()
        assert ft.check(model) == []

    def test_undo_keeps_to_its_own(self, operate: Callable[[nn.Module], None]) -> None:
        model = net()
        ft.freeze(model, "[0].bias")
        handle = ft.freeze(model, "[0]")
        operate(model)
        handle.undo()
        assert list(ft.frozen(model)) == ["0.bias"]

    def test_a_constant_stays_one(self, operate: Callable[[nn.Module], None]) -> None:
        model = net()
        model[0].weight.requires_grad_(False)
        ft.freeze(model, "[0]")
        operate(model)
        ft.thaw(model)
        assert outside(model) == {"0.bias"}
        ft.thaw(model, constants=True)
        assert ft.frozen(model) == {}


@pytest.mark.parametrize(
    ("operate", "back"),
    [
        (pruned, lambda model: prune.remove(model[0], "weight")),
        (spectrally_normed, lambda model: parametrize.remove_parametrizations(model[0], "weight")),
        (orthogonal, lambda model: parametrize.remove_parametrizations(model[0], "weight")),
        (old_spectrally_normed, lambda model: nn.utils.remove_spectral_norm(model[0])),
        (old_weight_normed, lambda model: nn.utils.remove_weight_norm(model[0])),
    ],
    ids=["pruned", "spectrally_normed", "orthogonal", "old_spectrally_normed", "old_weight_normed"],
)
class TestTakenBack:
    """The name from before the surgery is there again."""

    def test_what_was_frozen_before_it(
        self, operate: Callable[[nn.Module], None], back: Callable[[nn.Module], object]
    ) -> None:
        model = net()
        handle = ft.freeze(model, "[0]")
        operate(model)
        back(model)
        handle.undo()
        assert ft.frozen(model) == {}

    def test_what_was_frozen_in_between(
        self, operate: Callable[[nn.Module], None], back: Callable[[nn.Module], object]
    ) -> None:
        model = net()
        operate(model)
        handle = ft.freeze(model, "[0]")
        back(model)
        ft.freeze(model, "[1].bias")
        assert sorted(ft.frozen(model)) == ["0.bias", "0.weight", "1.bias"]
        handle.undo()
        assert sorted(ft.frozen(model)) == ["1.bias"]


class TestLost:
    """PyTorch makes a buffer of a frozen tensor when its weight normalisation is removed."""

    @staticmethod
    def made() -> tuple[nn.Sequential, ft.Handle]:
        model = net()
        weight_normed(model)
        handle = ft.freeze(model, "[0]")
        parametrize.remove_parametrizations(model[0], "weight")
        return model, handle

    def test_is_found(self) -> None:
        model, _ = self.made()
        assert str(ft.check(model)).split("\n") == [
            "lost-claims: 0.weight",
            "  It was frozen as a parameter, and is a plain tensor now.",
            "  No optimizer can train it, and nothing can thaw it.",
            "  Fix: make a parameter of it, module.weight = nn.Parameter(module.weight), and freeze that.",
        ]

    def test_undo_raises_and_changes_nothing(self) -> None:
        model, handle = self.made()
        before = state(model)
        with pytest.raises(UnsupportedError) as caught:
            handle.undo()
        assert str(caught.value).split("\n") == [
            "handle.undo() would give back 3 parameters, and 1 of them became plain tensors since: 0.weight.",
            "Make parameters of them first: module.weight = nn.Parameter(module.weight.detach()).",
        ]
        assert state(model) == before

    def test_the_fix_is_a_cure(self) -> None:
        model, handle = self.made()
        del model[0].weight
        model[0].weight = nn.Parameter(torch.zeros(4, 4), requires_grad=False)
        assert ft.check(model) == []
        handle.undo()
        assert ft.frozen(model) == {}


def test_synchronised_batch_norm_is_held_again_by_the_next_word() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    handle = ft.freeze(model, "[0]")
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert [finding.kind for finding in ft.check(model)] == ["moving-statistics", "moved-claims"]
    ft.freeze(model, "[1].bias")
    assert training(model.train()) == {"", "1"}
    assert ft.check(model) == []
    handle.undo()
    assert sorted(ft.frozen(model)) == ["1.bias"]
    assert training(model) == {"", "0", "1"}


def test_a_module_that_was_replaced_by_a_new_one_is_not_frozen() -> None:
    """What was meant is plain: the new one is to be trained."""
    model = net()
    handle = ft.freeze(model)
    model[1] = nn.Linear(4, 3)
    assert "moved-claims" not in {finding.kind for finding in ft.check(model)}
    handle.undo()
    assert ft.frozen(model) == {}


def test_another_model_with_the_same_parameter_is_not_where_it_went() -> None:
    one, other = net(), net()
    other[0].weight = one[0].weight
    ft.freeze(one, "[0]")
    assert ft.check(other) == []
    ft.freeze(other, "[1]")
    assert training(other.train()) == {"", "0"}
