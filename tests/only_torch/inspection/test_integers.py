"""Integer and quantised bases are frozen parameters: counted, guarded, selected, saved."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline import MovedError, glob, where
from frostline.errors import ConstantError, DeltaError
from only_torch.bits import training


class Params4bit(nn.Parameter):
    """Two values of four bits in a byte, as bitsandbytes packs them."""

    def __new__(cls, data: Tensor) -> Params4bit:
        return nn.Parameter._make_subclass(cls, data, False)  # type: ignore[no-any-return]


class Adapted(nn.Module):
    """A layer with a base that can never train, buffers that go with it, and an adapter that trains."""

    def __init__(self, base: Tensor) -> None:
        super().__init__()
        self.base = base if isinstance(base, nn.Parameter) else nn.Parameter(base, requires_grad=False)
        self.register_buffer("scales", torch.ones(8))
        self.adapter = nn.Parameter(torch.zeros(8, 2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.adapter + self.base.float().sum() * self.scales.sum()


def int8() -> nn.Module:
    return Adapted(torch.ones(8, 8, dtype=torch.int8))


def packed() -> nn.Module:
    return Adapted(Params4bit(torch.ones(64, 1, dtype=torch.uint8)))


def float8() -> nn.Module:
    """It could have a gradient; it has none, so it is a constant."""
    return Adapted(torch.ones(8, 8).to(torch.float8_e4m3fn))


each_base = pytest.mark.parametrize("make", [int8, packed, float8])


@each_base
class TestBase:
    def test_is_counted_as_frozen(self, make: Callable[[], nn.Module]) -> None:
        report = ft.report(make())
        totals = report.to_dict()["totals"]
        assert (totals["params"], totals["frozen_params"], totals["bytes"], totals["frozen_bytes"]) == (80, 64, 128, 64)
        assert str(report).splitlines()[-1] == "16 of 80 params are trainable (20.0%; 64 B of 128 B)."

    def test_is_guarded(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        with ft.guard(model) as watching:
            assert watching.paths == {"base"}
        with pytest.raises(MovedError) as caught, ft.guard(model):
            model.base.data.view(torch.uint8)[3] = 7
        assert [moved.path for moved in caught.value.moved] == ["base"]

    def test_is_among_the_frozen(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        assert (list(ft.frozen(model)), list(ft.trainable(model))) == (["base"], ["adapter"])
        assert ft.check(model) == []

    def test_is_selected(self, make: Callable[[], nn.Module]) -> None:
        for choice in ("base", glob("b*"), where(lambda p: p.itemsize == 1), make):
            model = make()
            choice = model.base if choice is make else choice
            assert ft.freeze(model, choice, expect=1).plan.frozen == {"base"}

    def test_leaves_its_layer_in_training_mode_while_an_adapter_trains(self, make: Callable[[], nn.Module]) -> None:
        model = nn.Sequential(make(), nn.Dropout(0.5))
        ft.freeze(model, "**", "!**.adapter")
        assert training(model.train()) == {"", "0", "1"}
        ft.freeze(model)
        assert training(model.train()) == set()

    def test_stays_frozen_through_a_thaw(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        ft.freeze(model)
        ft.thaw(model)
        assert list(ft.trainable(model)) == ["adapter"]

    def test_is_none_of_the_binding_s(self, make: Callable[[], nn.Module]) -> None:
        model = make()
        optimizer = torch.optim.AdamW(ft.trainable(model).values(), lr=0.1, weight_decay=0.1)
        ft.bind(optimizer, model)
        for _ in range(2):
            model(torch.ones(1, 8)).sum().backward()
            optimizer.step()
        assert [finding.kind for finding in ft.check(model, optimizer)] == []

    def test_is_the_base_of_a_delta(self, make: Callable[[], nn.Module], tmp_path: Path) -> None:
        model, file = make(), os.fspath(tmp_path / "delta.safetensors")
        nn.init.ones_(model.adapter)
        ft.save_delta(file, model)
        other = make()
        assert ft.load_delta(file, other).names == ("adapter", "scales")
        assert torch.equal(other.adapter, model.adapter)
        other.base.data.view(torch.uint8)[3] = 7
        with pytest.raises(DeltaError, match="another base: 1 of 1 frozen tensors differ"):
            ft.load_delta(file, other)

    def test_is_kept_through_a_frozen_use(self, make: Callable[[], nn.Module]) -> None:
        model = nn.Sequential(ft.Frozen(make()), nn.Linear(2, 2))
        assert sorted(ft.frozen(model)) == ["0.adapter", "0.base"]
        assert ft.report(model).to_dict()["totals"]["frozen_params"] == 80


@pytest.mark.parametrize(("make", "dtype"), [(int8, "int8"), (packed, "uint8")])
def test_the_error_of_a_thaw_says_the_dtype(make: Callable[[], nn.Module], dtype: str) -> None:
    model = make()
    for selectors in (("base",), ("b*",), (model.base,)):
        with pytest.raises(ConstantError) as caught:
            ft.thaw(model, *selectors)
        assert str(caught.value).split("\n")[1:] == [
            f"  base: {dtype}",
            "Thaw floating parameters, for example those of an adapter.",
        ]


def test_a_table_of_integers_alone_is_no_reason_to_train() -> None:
    model = nn.ModuleDict({"index": nn.Module(), "head": nn.Linear(2, 2)})
    model.index.register_parameter("table", nn.Parameter(torch.arange(4), requires_grad=False))
    ft.freeze(model, "head")
    assert [finding.kind for finding in ft.check(model)] == ["nothing-trainable"]
