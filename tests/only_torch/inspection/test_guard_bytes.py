"""The guard compares bytes, of tensors of every type, size and layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError
from frostline.errors import UnsupportedError
from frostline.torch._tensors import bytes_of, why_unreadable
from only_torch.inspection.guarded import change, holder


def _moves(model: nn.Module, position: int, *, copy: bool = False) -> MovedError:
    with pytest.raises(MovedError) as caught, ft.guard(model, copy=copy):
        change(model.part.t, position)
    return caught.value


DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("buffer", [False, True], ids=["parameter", "buffer"])
def test_one_bit_of_one_value(dtype: torch.dtype, buffer: bool) -> None:
    model = holder(torch.ones(3, 4, dtype=dtype), buffer=buffer)
    error = _moves(model, 6)
    assert [(m.path, m.kind) for m in error.moved] == [("part.t", "buffer" if buffer else "parameter")]
    assert error.moved[0].difference.startswith("First difference: at [1, 2], ")
    assert error.moved[0].difference.endswith("; 1 of 12 values.")
    assert error.watched == 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_moves_and_nothing_is_said(dtype: torch.dtype) -> None:
    """The negative control: the same model, and training beside the frozen part."""
    model = holder(torch.ones(3, 4, dtype=dtype))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    with ft.guard(model) as watching:
        model.head(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    assert watching.paths == {"part.t", "part.scale"}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool], ids=str)
def test_buffers_of_integers(dtype: torch.dtype) -> None:
    model = holder(torch.zeros(2, dtype=dtype), buffer=True)
    error = _moves(model, 1)
    after = True if dtype is torch.bool else 1
    assert error.moved[0].difference == f"First difference: at [1], {type(after)(0)!r} -> {after!r}; 1 of 2 values."


LARGE = [
    ("4 KiB, kept whole", 1024, 1023, "First difference: at [1023], 1.0 -> 1.0000001192092896; 1 of 1024 values."),
    ("just over 4 KiB", 1025, 1024, "First difference: among values 0 to 1024 of 1025."),
    ("just over 1 MiB, first stretch", 262145, 262143, "First difference: among values 0 to 262143 of 262145."),
    ("just over 1 MiB, last value", 262145, 262144, "First difference: among values 262144 to 262144 of 262145."),
    ("3 MiB, the middle", 786432, 300000, "First difference: among values 262144 to 524287 of 786432."),
]


@pytest.mark.parametrize(("name", "size", "position", "text"), LARGE, ids=[row[0] for row in LARGE])
def test_large_tensors(name: str, size: int, position: int, text: str) -> None:
    """A digest of each MiB says in which one the difference is; up to 4 KiB are kept whole."""
    model = holder(torch.ones(size))
    assert _moves(model, position).moved[0].difference == text


@pytest.mark.parametrize(("size", "position"), [(1025, 1024), (262145, 262144)])
def test_a_copy_shows_the_first_value_of_a_large_tensor(size: int, position: int) -> None:
    model = holder(torch.ones(size))
    error = _moves(model, position, copy=True)
    assert error.moved[0].difference == (
        f"First difference: at [{position}], 1.0 -> 1.0000001192092896; 1 of {size} values."
    )


def test_the_digest_keeps_no_copy() -> None:
    model = holder(torch.ones(1025))
    with ft.guard(model) as watching:
        assert watching._witnesses["part.t"].marks[""].kept is None
    with ft.guard(model, copy=True) as watching:
        assert len(watching._witnesses["part.t"].marks[""].kept) == 4100


LAYOUTS = {
    "transposed": lambda: torch.ones(4, 3).t(),
    "every other": lambda: torch.ones(3, 8)[:, ::2],
    "expanded": lambda: torch.ones(3, 1).expand(3, 4),
    "channels last": lambda: torch.ones(1, 3, 2, 2).to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_that_are_not_contiguous(layout: str) -> None:
    model = holder(LAYOUTS[layout]())
    tensor = model.part.t
    last = [size - 1 for size in tensor.shape]
    with ft.guard(model):
        tensor.detach()[tuple(last)] = 1
    with pytest.raises(MovedError) as caught, ft.guard(model):
        tensor.detach()[tuple(last)] = 2
    count = 4 if layout == "expanded" else 1
    first = [2, 0] if layout == "expanded" else last
    assert caught.value.moved[0].difference == f"First difference: at {first}, 1.0 -> 2.0; {count} of 12 values."


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_sizes_of_zero_and_no_dimension(shape: tuple[int, ...]) -> None:
    model = holder(torch.ones(shape))
    with ft.guard(model) as watching:
        model.part.t.detach().mul_(1)
    assert "part.t" in watching.paths
    if shape == ():
        with pytest.raises(MovedError) as caught, ft.guard(model):
            model.part.t.detach().mul_(2)
        assert caught.value.moved[0].difference == "First difference: at [], 1.0 -> 2.0; 1 of 1 values."


def test_zero_and_minus_zero_are_not_the_same_bytes() -> None:
    model = holder(torch.tensor([0.0, 1.0]))
    assert torch.equal(model.part.t, -model.part.t.detach() * torch.tensor([1.0, -1.0]))
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model.part.t.detach()[0] = -0.0
    assert caught.value.moved[0].difference == "First difference: at [0], 0.0 -> -0.0; 1 of 2 values."


def test_a_nan_does_not_move_and_its_payload_counts() -> None:
    model = holder(torch.full((2,), torch.nan))
    with ft.guard(model):
        model.part.t.detach().neg().neg_()
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model.part.t.detach().view(torch.int32)[1] ^= 1
    assert caught.value.moved[0].difference == "First difference: at [1], nan -> nan; 1 of 2 values."


def test_conjugate_and_negative_views_are_read_as_their_values() -> None:
    tensor = torch.ones(2, dtype=torch.complex64).conj()
    model = holder(tensor)
    assert _moves(holder(tensor.clone()), 0).moved[0].path == "part.t"
    with ft.guard(model):
        model.part.t.detach().mul(1)


def test_what_has_no_data_is_refused_by_name() -> None:
    """Weights that Accelerate has offloaded are on the meta device, too: to compare nothing would prove nothing."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).to("meta"), nn.Linear(2, 2))
    ft.freeze(model, "[:-1]")
    with pytest.raises(UnsupportedError) as caught, ft.guard(model):
        raise AssertionError
    assert str(caught.value).split("\n") == [
        "guard(model) cannot read 2 of 4 frozen tensors:",
        "  1.weight is on the meta device, without data",
        "  1.bias is on the meta device, without data",
        'Give them data first: model.to_empty(device="cpu"); or end their offloading: '
        "accelerate.hooks.remove_hook_from_submodules(model).",
    ]
    with ft.guard(model[2:]) as watching:
        pass
    assert watching.paths == frozenset()


def test_memory_that_was_given_back_is_not_read() -> None:
    model = nn.Linear(2, 2)
    ft.freeze(model)
    model.weight.untyped_storage().resize_(0)
    with pytest.raises(UnsupportedError, match="\n  weight has given its memory back\n"), ft.guard(model):
        raise AssertionError


def test_a_class_that_shows_nothing_of_its_inside_is_refused() -> None:
    class Opaque(torch.Tensor):
        """A tensor of a library that does not say where its values are."""

        @staticmethod
        def __new__(cls) -> Opaque:
            return torch.Tensor._make_wrapper_subclass(cls, (2, 2))

        @classmethod
        def __torch_dispatch__(cls, *_: object, **__: object) -> object:
            raise NotImplementedError

    assert why_unreadable(Opaque()) == "is of the class Opaque, which shows nothing of its inside"
    with pytest.raises(ValueError, match="shows nothing of its inside"), bytes_of(Opaque()):
        raise AssertionError


def test_data_that_goes_to_meta_inside_the_block() -> None:
    model = nn.Linear(2, 2)
    ft.freeze(model)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model.to("meta")
    assert caught.value.moved[0].difference == "It had 16 bytes and is on the meta device, without data."
