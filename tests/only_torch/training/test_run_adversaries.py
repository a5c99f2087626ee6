"""What people do to a run that nobody foresaw: parts replaced, groups edited, optimizers copied and thrown away."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import Rule, schedules
from frostline.errors import BindError, DeltaError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))


def adamw(model: nn.Module, lr: Any = 0.1) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=lr)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    """Takes a step, and says which parameters moved."""
    before = {path: p.detach().numpy().tobytes() for path, p in model.named_parameters()}
    optimizer.zero_grad()
    model(torch.ones(5, 4)).square().sum().backward()
    optimizer.step()
    return {path for path, p in model.named_parameters() if p.detach().numpy().tobytes() != before[path]}


def inside(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[list[str]]:
    names = {id(p): path for path, p in model.named_parameters()}
    return [[names.get(id(p), "other") for p in group["params"]] for group in optimizer.param_groups]


ALL = {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}


class TestPartsThatAreReplaced:
    def test_a_module_in_the_place_of_another_one_trains(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        assert step(model, optimizer) == ALL
        model[1] = nn.Linear(3, 3)
        assert step(model, optimizer) == ALL
        assert inside(optimizer, model) == [["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]]
        assert [optimizer.state[model[n].weight]["step"].item() for n in range(3)] == [2.0, 1.0, 2.0]
        assert len(optimizer.state) == 6

    def test_unbound_it_never_does(self) -> None:
        """The negative control."""
        model = net()
        optimizer = adamw(model)
        model[1] = nn.Linear(3, 3)
        assert step(model, optimizer) == ALL - {"1.weight", "1.bias"}

    def test_deep_inside_and_under_a_driver(self) -> None:
        model = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)), nn.Linear(3, 2))
        optimizer = adamw(model)
        driver = ft.Driver(schedules.LinearProbe(["[1]"], steps=1), model, optimizer)
        model[0] = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
        assert step(model, optimizer) == {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias", "1.weight", "1.bias"}
        driver.step()
        assert len(inside(optimizer, model)[0]) == 6

    def test_before_there_is_a_driver(self) -> None:
        model = net()
        binding = ft.bind(adamw(model), model)
        model[1] = nn.Linear(3, 3)
        ft.Driver(schedules.LinearProbe(["[1]"], steps=1), model, binding)
        assert step(model, binding.optimizer) == {"1.weight", "1.bias"}

    def test_layers_that_change_places_keep_their_own_moments(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        step(model, optimizer)
        first, second = model[0], model[1]
        before = [optimizer.state[layer.weight]["exp_avg"].clone() for layer in (first, second)]
        model[0], model[1] = second, first
        ft.freeze(model, "**.bias")
        assert [
            torch.equal(optimizer.state[x.weight]["exp_avg"], m) for x, m in zip((first, second), before, strict=True)
        ] == [
            True,
            True,
        ]

    def test_tensors_that_change_places_leave_moments_with_the_names(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        step(model, optimizer)
        before = [optimizer.state[layer.weight]["exp_avg"].clone() for layer in model]
        model[0].weight, model[1].weight = model[1].weight, model[0].weight
        ft.freeze(model, "**.bias")
        after = [optimizer.state[layer.weight]["exp_avg"] for layer in model]
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True]

    def test_what_is_tied_later_is_stepped_once(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        step(model, optimizer)
        before = optimizer.state[model[0].weight]["exp_avg"].clone()
        model[1].weight = model[0].weight
        ft.freeze(model, "**.bias")
        assert inside(optimizer, model) == [["0.weight"]]
        assert torch.equal(optimizer.state[model[0].weight]["exp_avg"], before)
        step(model, optimizer)
        assert optimizer.state[model[0].weight]["step"].item() == 2.0

    def test_a_lazy_one_trains_once_it_has_a_shape(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        model[1] = nn.LazyLinear(3)
        ft.freeze(net(), "[0]")
        model(torch.ones(1, 4))
        assert step(model, optimizer) == ALL

    def test_a_layer_that_is_wrapped_is_the_same_layer(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        model[1] = nn.Sequential(model[1])
        assert step(model, optimizer) == {"0.weight", "0.bias", "1.0.weight", "1.0.bias", "2.weight", "2.bias"}
        ft.freeze(model, "[1]")
        assert inside(optimizer, model) == [["0.weight", "0.bias", "2.weight", "2.bias"]]

    @pytest.mark.parametrize("frozen", [False, True])
    def test_moments_of_another_shape_are_dropped(self, frozen: bool) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        step(model, optimizer)
        handle = ft.freeze(model, "[2]") if frozen else None
        model[2].weight, model[2].bias = nn.Parameter(torch.ones(5, 3)), nn.Parameter(torch.ones(5))
        if handle is not None:
            ft.freeze(model, "[2]").undo()
            handle.undo()
        assert step(model, optimizer) == ALL
        assert optimizer.state[model[2].weight]["exp_avg"].shape == (5, 3)
        assert optimizer.state[model[2].weight]["step"].item() == 1.0


class TestGroupsThatAreEditedByHand:
    def test_a_group_that_is_added(self) -> None:
        model, other = net(), nn.Parameter(torch.ones(1))
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        optimizer.add_param_group({"params": [other], "lr": 0.5})
        ft.freeze(model, "[:2]")
        assert inside(optimizer, model) == [["2.weight", "2.bias"], ["other"]]

    def test_what_was_frozen_thaws_into_the_group_that_it_was_added_to(self) -> None:
        model = net()
        handle = ft.freeze(model, "[2]")
        optimizer = adamw(model[:2])
        binding = ft.bind(optimizer, model)
        optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.5})
        handle.undo()
        assert inside(optimizer, model) == [["0.weight", "0.bias", "1.weight", "1.bias"], ["2.weight", "2.bias"]]
        assert {binding.state_dict()["group_of"][path] for path in ("2.weight", "2.bias")} == {1}

    def test_what_is_appended_to_a_group_stays(self) -> None:
        model, other = net(), nn.Parameter(torch.ones(1))
        optimizer = torch.optim.AdamW(model.named_parameters())
        ft.bind(optimizer, model)
        optimizer.param_groups[0]["params"].append(other)
        optimizer.param_groups[0]["param_names"].append("temperature")
        ft.freeze(model, "[:2]")
        assert inside(optimizer, model) == [["other", "2.weight", "2.bias"]]
        assert optimizer.param_groups[0]["param_names"] == ["temperature", "2.weight", "2.bias"]

    def test_a_group_that_is_removed(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model, rules=[Rule("**.bias", weight_decay=0.0)])
        optimizer.param_groups.pop()
        ft.freeze(net(), "[0]")  # Of what is wrong elsewhere, no other model hears.
        with pytest.raises(BindError) as raised:
            step(model, optimizer)
        assert str(raised.value).splitlines() == [
            "optimizer.step() finds 1 parameter groups, and there were 2.",
            "Leave groups where they are; they may be empty.",
        ]


class TestCopies:
    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
    def test_a_copy_of_a_binding_follows_its_own_model(self, copied: Any) -> None:
        model = net()
        binding = ft.bind(adamw(model), model)
        step(model, binding.optimizer)
        other_model, other = copied((model, binding))
        ft.freeze(other_model, "[0]")
        assert inside(other.optimizer, other_model) == [["1.weight", "1.bias", "2.weight", "2.bias"]]
        assert len(inside(binding.optimizer, model)[0]) == 6
        assert sorted(other.state_dict()["state"]) == sorted(ALL)

    def test_a_copy_of_a_driver_goes_on(self) -> None:
        model = net()
        driver = ft.Driver(schedules.LinearProbe(["[2]"], steps=2), model, adamw(model))
        other_model, other = copy.deepcopy((model, driver))
        moved = []
        for _ in range(3):
            moved.append(step(other_model, other.bindings[0].optimizer))
            other.step()
        assert moved == [{"2.weight", "2.bias"}, {"2.weight", "2.bias"}, ALL]
        assert driver.steps == 0
        assert step(model, driver.bindings[0].optimizer) == {"2.weight", "2.bias"}

    def test_an_optimizer_that_is_gone_is_in_nobodys_way(self) -> None:
        model = net()
        gc.disable()
        try:
            ft.bind(adamw(model), model)
            assert step(model, ft.bind(adamw(model), model).optimizer) == ALL
        finally:
            gc.enable()

    def test_rates_that_are_tensors_are_not_shared_by_what_was_loaded(self) -> None:
        model, other = net(), net()
        binding = ft.bind(adamw(model, torch.tensor(0.1)), model)
        later = ft.bind(adamw(other, torch.tensor(0.3)), other)
        later.load_state_dict(binding.state_dict())
        later.optimizer.param_groups[0]["lr"].fill_(7.0)
        assert binding.optimizer.param_groups[0]["lr"].item() == pytest.approx(0.1)


class TestWords:
    def test_a_factor_for_a_path_that_there_is_not(self) -> None:
        model = net()
        binding = ft.bind(adamw(model), model, "[0]")
        with pytest.raises(BindError) as raised:
            binding.scale({"0.wieght": 0.5})
        assert str(raised.value).splitlines() == [
            "binding.scale(factors) names 1 of 1 paths that are not among the 2 bound ones:",
            "  0.wieght",
            "Write one of binding.names: ['0.weight'].",
        ]

    def test_a_state_that_lacks_a_field(self) -> None:
        model = net()
        binding = ft.bind(adamw(model), model)
        state = binding.state_dict()
        del state["shapes"], state["state"]
        with pytest.raises(BindError) as raised:
            binding.load_state_dict(state)
        assert str(raised.value).splitlines() == [
            "binding.load_state_dict(state) got a state that lacks shapes, state.",
            "Save it with binding.state_dict(), from a binding of the same model with the same rules.",
        ]

    def test_shapes_may_come_as_lists(self) -> None:
        model = net()
        binding = ft.bind(adamw(model), model)
        state = binding.state_dict()
        binding.load_state_dict(state | {"shapes": {path: list(shape) for path, shape in state["shapes"].items()}})


def _expanded() -> nn.Sequential:
    model = net()
    model[2].register_buffer("scale", torch.ones(1).expand(4))
    return model


def _of_inference() -> nn.Sequential:
    model = net()
    with torch.inference_mode():
        model[2].register_buffer("scale", torch.ones(4))
    return model


@pytest.mark.parametrize("made", [_expanded, _of_inference])
def test_a_delta_that_cannot_be_written_into_a_model_changes_nothing(made: Any, tmp_path: Path) -> None:
    file, model = tmp_path / "run.safetensors", made()
    ft.freeze(model, "[0]")
    ft.save_delta(file, model)
    other = made()
    with torch.no_grad():
        other[1].weight.zero_()
    with pytest.raises(DeltaError) as raised:
        ft.load_delta(file, other)
    assert str(raised.value).splitlines() == [
        f"load_delta({str(file)!r}, model) cannot write 1 of 5 tensors in place; they are expanded, or of inference:",
        "  2.scale",
        "Make them plain tensors first: tensor.clone().",
    ]
    assert not other[1].weight.any()
    assert len(ft.trainable(other)) == 6
