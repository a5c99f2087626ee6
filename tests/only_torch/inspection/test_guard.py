"""The guard: what it watches, when it compares, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError
from only_torch.inspection.guarded import change, holder


def test_verify_in_the_middle() -> None:
    model = holder(torch.ones(2))
    with pytest.raises(MovedError) as caught, ft.guard(model) as watching:
        _verified_three_times(model, watching)
    assert caught.value.moved[0].difference == "First difference: at [1], 1.0 -> 1.0000001192092896; 1 of 2 values."


def _verified_three_times(model: nn.Module, watching: object) -> None:
    watching.verify()
    model.head.weight.data.add_(1)
    watching.verify()
    change(model.part.t, 1)
    watching.verify()
    raise AssertionError("the last verify lets it pass")


def test_a_movement_that_is_undone_is_seen_in_the_middle_and_not_at_the_end() -> None:
    model = holder(torch.ones(2))
    with ft.guard(model) as watching:
        change(model.part.t, 1)
        with pytest.raises(MovedError):
            watching.verify()
        change(model.part.t, 1)


def test_an_exception_inside_comes_out_unchanged() -> None:
    model, own = holder(torch.ones(2)), KeyError("own")
    with pytest.raises(KeyError) as caught, ft.guard(model):
        _change_and_raise(model, own)
    assert caught.value is own
    assert caught.value.__context__ is None


def _change_and_raise(model: nn.Module, error: Exception) -> None:
    change(model.part.t, 0)
    raise error


def test_trainable_parameters_are_not_watched() -> None:
    model = holder(torch.ones(2))
    with ft.guard(model) as watching:
        model.head.weight.data.add_(1)
    assert watching.paths == {"part.t", "part.scale"}


def test_buffers_of_a_module_frozen_in_part_are_not_watched() -> None:
    """Only a module that is frozen whole keeps its statistics."""
    model = nn.BatchNorm1d(2)
    ft.freeze(model, "weight")
    with ft.guard(model) as watching:
        model(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert watching.paths == {"weight"}


@pytest.mark.parametrize("affine", [True, False])
def test_buffers_inside_a_module_frozen_by_hand_are_watched(affine: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=affine)).requires_grad_(False)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert {m.path for m in caught.value.moved} == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_buffers_that_no_state_dict_has_are_watched() -> None:
    model = holder(torch.ones(2))
    model.part.register_buffer("cache", torch.zeros(1), persistent=False)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model.part.cache.add_(1)
    assert [m.path for m in caught.value.moved] == ["part.cache"]


def test_a_frozen_use_is_watched() -> None:
    model = nn.Sequential(ft.Frozen(nn.BatchNorm1d(2)), nn.Linear(2, 1))
    with ft.guard(model) as watching:
        model.train()(torch.ones(2, 2)).sum().backward()
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert watching.paths == {f"0.{name}" for name in names}
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model[0]._view.layer.weight.data.add_(1)
    assert [m.path for m in caught.value.moved] == ["0.weight"]


def test_a_frozen_use_whose_layer_trains_in_the_same_model_is_not_watched() -> None:
    """That the layer moves is meant: L4."""
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, ft.Frozen(layer), ft.Frozen(nn.Linear(2, 1)))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    before = layer.weight.detach().clone()
    with ft.guard(model) as watching:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert watching.paths == {"2.weight", "2.bias"}
    assert not torch.equal(layer.weight, before)


def test_the_layer_frozen_in_place_beside_its_use_is_watched() -> None:
    """The negative control of the test above: nothing trains the layer, so both names are watched."""
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, ft.Frozen(layer), nn.Linear(2, 1))
    ft.freeze(model, "0")
    with pytest.raises(MovedError) as caught, ft.guard(model) as watching:
        layer.weight.data.add_(1)
    assert watching.paths == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert {m.path for m in caught.value.moved} == {"0.weight", "1.weight"}


def test_statistics_of_a_layer_that_trains_beside_its_frozen_use_are_not_watched() -> None:
    """The statistics belong to the trainable use, and moving them is meant."""
    layer = nn.BatchNorm1d(2)
    model = nn.Sequential(layer, ft.Frozen(layer))
    with ft.guard(model):
        model(torch.tensor([[1.0, 2.0], [3.0, 5.0]])).sum().backward()
    assert layer.num_batches_tracked == 1


def test_a_tied_tensor_is_reported_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    ft.freeze(model)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model[1].weight.data.add_(1)
    assert [m.path for m in caught.value.moved] == ["0.weight"]


def test_the_guard_leaves_the_model_as_it_is() -> None:
    model = holder(torch.ones(2))
    keys = [sorted(vars(module)) for module in model.modules()]
    versions = [p._version for p in model.parameters()]
    with ft.guard(model, copy=True):
        pass
    assert [sorted(vars(module)) for module in model.modules()] == keys
    assert [p._version for p in model.parameters()] == versions


def test_guards_nest() -> None:
    model = holder(torch.ones(2))
    with pytest.raises(MovedError) as caught, ft.guard(model) as outer, ft.guard(model) as inner:
        change(model.part.t, 0)
    assert outer.paths == inner.paths
    assert isinstance(caught.value, MovedError)


def test_a_change_after_the_block_is_nobody_s_business() -> None:
    model = holder(torch.ones(2))
    with ft.guard(model) as watching:
        pass
    change(model.part.t, 0)
    with pytest.raises(MovedError):
        watching.verify()


def test_a_compiled_or_parallel_wrapper_does_not_change_the_paths() -> None:
    model = holder(torch.ones(2))
    with ft.guard(nn.DataParallel(model)) as watching:
        pass
    assert watching.paths == {"part.t", "part.scale"}
