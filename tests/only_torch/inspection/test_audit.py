"""An audit says which parameters a loss can reach, and changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline.errors import UnsupportedError
from only_torch.bits import contents, gradients, training

X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 4.0, -1.5]])


class Net(nn.Module):
    """A body, a detached side, and a part that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.side, self.spare, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            side = self.side(x)
        return self.head(self.body(x) + side)


def both(module: str) -> set[str]:
    return {f"{module}.weight", f"{module}.bias"}


def test_each_parameter_is_in_its_set() -> None:
    found = ft.audit(Net(), X)
    assert found.reached == both("body.0") | both("body.1") | both("head")
    assert (found.stopped, found.unused, found.frozen) == (both("side"), both("spare"), frozenset())
    assert repr(found) == "<Audit: 6 reached, 2 stopped, 2 unused; 4 idle>"


def test_it_agrees_with_a_backward() -> None:
    model = Net()
    found = ft.audit(model, X)
    model(X).sum().backward()
    assert found.reached == {name for name, gradient in gradients(model).items() if gradient is not None}


def test_what_is_frozen_is_stopped_and_not_idle() -> None:
    model = Net()
    ft.freeze(model, "body", "spare")
    model.head = ft.Frozen(model.head)
    found = ft.audit(model, X)
    assert found.reached == frozenset()
    assert found.stopped == both("body.0") | both("body.1") | both("side") | both("head")
    assert found.idle == both("side")


def test_a_loss_may_read_a_part_of_the_output() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"a": self.a(x), "b": self.b(x)}

    found = ft.audit(Two(), X, loss=lambda output: output["a"].sum() + output["b"].detach().sum())
    assert (found.reached, found.stopped, found.unused) == (both("a"), both("b"), frozenset())
    found = ft.audit(Two(), X, loss=lambda output: output["a"].sum())
    assert (found.reached, found.stopped, found.unused) == (both("a"), frozenset(), both("b"))


def test_its_plan_freezes_what_is_idle() -> None:
    model = Net()
    ft.follow(model, ft.audit(model, X).plan)
    assert set(ft.trainable(model)) == both("body.0") | both("body.1") | both("head")


def test_a_tied_parameter_is_reached_where_one_use_is() -> None:
    model = Net()
    model.spare.weight = model.body[0].weight
    found = ft.audit(model, X)
    assert "body.0.weight" in found.reached
    assert found.unused == {"spare.bias"}


def test_nothing_changes() -> None:
    model = Net()
    model(X).sum().backward()
    before = contents(model), gradients(model), training(model), torch.get_rng_state().tolist()
    ft.audit(model, X)
    assert (contents(model), gradients(model), training(model), torch.get_rng_state().tolist()) == before


def test_a_model_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = Net()
    assert len(ft.audit(model, torch.empty(2, 3, device="meta")).reached) == 6


def test_a_model_that_reads_values_is_refused() -> None:
    class Reading(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum().item() > 0 else x

    with pytest.raises(UnsupportedError) as caught:
        ft.audit(Reading(3, 3), X)
    assert str(caught.value).splitlines()[0].startswith("audit(model, ...) cannot run Reading without data, because")
    assert str(caught.value).splitlines()[-1] == "Audit the part that does not: audit(model.part, ...)."
