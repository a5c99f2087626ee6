"""Guards, deltas and frozen uses read the parts of a tensor that wraps others, and not the address 0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError
from frostline.errors import DeltaError
from frostline.torch._tensors import addresses, plain_parts, storages, versions, why_unreadable
from only_torch.wrapper_tensors import Quantised, quantised_net

X = torch.ones(1, 4)


def frozen() -> nn.Sequential:
    model = quantised_net()
    ft.freeze(model, "[0]")
    return model


def test_the_parts_of_a_tensor() -> None:
    weight = quantised_net()[0].weight
    inner = weight.data
    assert isinstance(inner, Quantised)
    assert weight.data_ptr() == 0
    parts = dict(plain_parts(weight))
    assert [(name, part.dtype, tuple(part.shape)) for name, part in parts.items()] == [
        ("data_", torch.int8, (3, 4)),
        ("scale", torch.float32, (3, 1)),
    ]
    assert addresses(weight) == tuple(part.data_ptr() for part in parts.values())
    assert 0 not in addresses(weight)
    assert [storage.nbytes() for storage in storages(weight)] == [12, 12]
    before = versions(weight)
    parts["scale"].mul_(2)
    assert versions(weight) == (before[0], before[1] + 1)
    assert why_unreadable(weight) is None
    assert why_unreadable(Quantised(torch.ones(1, 1, device="meta"), torch.ones(1, 1))) == (
        "is on the meta device, without data"
    )


def test_nothing_moves_and_nothing_is_said() -> None:
    """The negative control of the next test."""
    model = frozen()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    with ft.guard(model) as watching:
        model(X).sum().backward()
        optimizer.step()
    assert watching.paths == {"0.weight", "0.bias"}


@pytest.mark.parametrize("name", ["data_", "scale"])
def test_a_guard_finds_the_part_that_moved(name: str) -> None:
    model = frozen()
    part = dict(plain_parts(model[0].weight))[name]
    part[1] = 5
    with pytest.raises(MovedError) as caught, ft.guard(model):
        part[1, 0] = 7
    said = str(caught.value).split("\n")
    now, values = ("5 -> 7", 12) if name == "data_" else ("5.0 -> 7.0", 3)
    assert said == [
        "1 of 2 frozen tensors moved.",
        f"'0.weight' (parameter) moved. First difference in its {name.replace('_', ' ')}: at [1, 0], {now}; "
        f"1 of {values} values.",
        "  Likely cause: in-place write: something wrote into it (copy_, add_, an initialiser, an average).",
        "  Look for writes under torch.no_grad() to this parameter.",
    ]


def test_a_weight_that_is_replaced_by_a_plain_one() -> None:
    model = frozen()
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model[0].weight = nn.Parameter(torch.ones(3, 4), requires_grad=False)
    assert caught.value.moved[0].difference == "It was kept in data_, scale and is kept in one tensor."


def test_a_delta_knows_another_quantised_base(tmp_path: Path) -> None:
    file = str(tmp_path / "a.safetensors")
    model = frozen()
    ft.save_delta(file, model)
    other = quantised_net()
    assert ft.load_delta(file, other).names == ("1.bias", "1.weight")
    dict(plain_parts(other[0].weight))["data_"][0, 0] += 1
    with pytest.raises(DeltaError) as caught:
        ft.load_delta(file, other)
    assert caught.value.found == ("differs: 0.weight",)


def test_a_tensor_that_trains_must_be_plain(tmp_path: Path) -> None:
    model = quantised_net()
    model[0].weight.requires_grad_(True)
    file = tmp_path / "a.safetensors"
    with pytest.raises(DeltaError) as caught:
        ft.save_delta(file, model)
    assert str(caught.value).split("\n") == [
        f"save_delta({str(file)!r}, model) has 1 of 4 tensors that train and that a file cannot hold as they are:",
        "  0.weight: Quantised of data_, scale",
        "Freeze them, and train an adapter beside them; or make them plain: parameter.dequantize().",
    ]
    assert not file.exists()


def test_a_frozen_use_follows_a_part_that_is_replaced() -> None:
    model = quantised_net()
    use = ft.Frozen(model[0])
    assert torch.equal(use(X), model[0](X))
    inner = model[0].weight.data
    before = use(X)
    model[0].weight.data_ = torch.zeros_like(inner.data_)
    assert torch.equal(use(X), model[0](X))
    assert not torch.equal(use(X), before)
