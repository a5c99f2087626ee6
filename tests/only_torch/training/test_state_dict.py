"""A bound optimizer's own state dict goes by name, and PyTorch's own format stays readable both ways."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import Rule
from frostline.errors import BindError

LAYERS = ["0.weight", "1.weight", "2.weight"]


def net(layers: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(layers)))


def adamw(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=0.1)


def adagrad(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.Adagrad(model.parameters(), lr=lr, weight_decay=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


def moments(binding: ft.Binding) -> dict[str, dict[str, bytes]]:
    """The moments by name, as bytes."""
    state = binding.state_dict()
    return {
        name: {key: value.numpy().tobytes() for key, value in state["state"][name].items() if value is not None}
        for name in state["moments"]
    }


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class TestByName:
    @pytest.mark.parametrize("made", [adamw, sgd, adagrad])
    @pytest.mark.parametrize(("then", "now"), list(itertools.product(["[0]", "[1]", "[2]"], repeat=2)))
    def test_whatever_is_frozen_then_and_now(self, made: Any, then: str, now: str) -> None:
        model, other = net(), net()
        optimizer, its = made(model), made(other)
        binding, fresh = ft.bind(optimizer, model), ft.bind(its, other)
        step(model, optimizer)
        ft.freeze(model, then)
        step(model, optimizer, 1)
        ft.freeze(other, now)
        its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        assert moments(fresh) == moments(binding)
        assert sorted(moments(fresh)) == LAYERS

    def test_by_position_pytorch_itself_would_mix_them_up(self) -> None:
        """The negative control: what an optimizer does that is not bound, with other layers frozen."""
        model, other = net(), net()
        one = torch.optim.AdamW([p for n, p in model.named_parameters() if n != "0.weight"])
        two = torch.optim.AdamW([p for n, p in other.named_parameters() if n != "1.weight"])
        step(model, one)
        two.load_state_dict(one.state_dict())
        assert torch.equal(two.state[other[0].weight]["exp_avg"], one.state[model[1].weight]["exp_avg"])

    def test_it_is_pytorchs_own_format_with_names_and_shelved_moments(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        step(model, optimizer)
        ft.freeze(model, "[1]")
        state = optimizer.state_dict()
        assert sorted(state) == ["param_groups", "state"]
        assert state["param_groups"][0]["params"] == [0, 1, 2]
        assert state["param_groups"][0]["param_names"] == LAYERS
        assert sorted(state["state"]) == [0, 1, 2]
        assert [state["state"][n]["step"].item() for n in range(3)] == [1.0, 1.0, 1.0]

    def test_a_state_of_the_binding_loads_by_the_optimizer_and_the_other_way_round(self) -> None:
        model, other, third = net(), net(), net()
        binding = ft.bind(adamw(model), model)
        step(model, binding.optimizer)
        ft.freeze(model, "[0]")
        fresh, last = ft.bind(adamw(other), other), ft.bind(adamw(third), third)
        fresh.optimizer.load_state_dict(binding.state_dict())
        last.load_state_dict(fresh.optimizer.state_dict())
        assert moments(binding) == moments(fresh) == moments(last)

    @pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("bound_first", [True, False])
    def test_a_run_that_a_trainer_resumes_is_the_run(self, cut: int, bound_first: bool) -> None:
        """A trainer saves and loads by the optimizer's own methods, before or after the optimizer is bound."""

        def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
            for number in steps:
                ft.thaw(model)
                ft.freeze(model, f"[{number % 3}]")
                step(model, optimizer, number)

        whole = net()
        optimizer = adamw(whole)
        ft.bind(optimizer, whole)
        train(whole, optimizer, range(cut))
        weights, state = copy.deepcopy(whole.state_dict()), copy.deepcopy(optimizer.state_dict())
        train(whole, optimizer, range(cut, 6))
        model = net()
        model.load_state_dict(weights)
        resumed = adamw(model, lr=7.0)
        if bound_first:
            ft.bind(resumed, model)
        resumed.load_state_dict(state)
        if not bound_first:
            ft.bind(resumed, model)
        train(model, resumed, range(cut, 6))
        assert same(model, whole)

    @pytest.mark.parametrize("bound_first", [True, False])
    def test_what_joined_later_and_the_groups_of_rules_come_along(self, bound_first: bool) -> None:
        def made() -> tuple[nn.Sequential, torch.optim.Optimizer, Callable[[], ft.Binding]]:
            model = net()
            ft.freeze(model, "[:2]")
            optimizer = torch.optim.AdamW(model[2].parameters(), lr=0.1)
            return model, optimizer, lambda: ft.bind(optimizer, model, rules=[Rule("[0]", lr_scale=0.5)])

        model, optimizer, bound = made()
        binding = bound()
        ft.thaw(model)
        step(model, optimizer)
        optimizer.param_groups[1]["lr"] = 0.03
        other, its, bound = made()
        if bound_first:
            fresh = bound()
            its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        else:
            its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            fresh = bound()
        assert moments(fresh) == moments(binding)
        assert [group["lr"] for group in its.param_groups] == [0.1, 0.03]
        assert all(isinstance(key, torch.Tensor) for key in its.state)
        ft.thaw(other)
        assert sorted(moments(fresh)) == LAYERS
        assert its.state[other[0].weight]["step"].item() == 1.0

    @pytest.mark.parametrize("named", [False, True])
    def test_parameters_that_are_not_the_models_keep_their_moments(self, named: bool) -> None:
        """Proxies of a metric loss, a temperature, the centres of classes."""

        def made() -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, ft.Binding]:
            model, loss = net(), nn.Linear(4, 4, bias=False)
            lists = (
                [model.named_parameters(), loss.named_parameters()]
                if named
                else [model.parameters(), loss.parameters()]
            )
            optimizer = torch.optim.AdamW([{"params": list(each)} for each in lists], lr=0.1)
            return model, loss, optimizer, ft.bind(optimizer, model)

        def train(model: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
            for number in steps:
                step(nn.Sequential(model, loss), optimizer, number)

        model, loss, optimizer, binding = made()
        train(model, loss, optimizer, range(3))
        ft.freeze(model, "[0]")
        states = copy.deepcopy([binding.state_dict(), optimizer.state_dict()])
        weights = copy.deepcopy([model.state_dict(), loss.state_dict()])
        train(model, loss, optimizer, range(3, 6))
        for state in states:
            other, its_loss, its, fresh = made()
            ft.freeze(other, "[0]")
            other.load_state_dict(weights[0])
            its_loss.load_state_dict(weights[1])
            fresh.load_state_dict(state)
            train(other, its_loss, its, range(3, 6))
            assert same(other, model)
            assert same(its_loss, loss)

    def test_moments_of_another_dtype_keep_their_bytes(self) -> None:
        """PyTorch's own `load_state_dict` casts moments to the dtype of the parameter."""
        model, other = net().bfloat16(), net().bfloat16()
        optimizer, its = adamw(model), adamw(other)
        ft.bind(optimizer, model)
        ft.bind(its, other)
        for each in model:
            blank = {"step": torch.tensor(1.0), "exp_avg_sq": torch.ones(4, 4)}
            optimizer.state[each.weight] = {**blank, "exp_avg": torch.full((4, 4), 1.0001)}
        its.load_state_dict(optimizer.state_dict())
        assert its.state[other[0].weight]["exp_avg"].dtype == torch.float32
        assert torch.equal(its.state[other[0].weight]["exp_avg"], torch.full((4, 4), 1.0001))

    def test_distributed_checkpoints_ask_for_what_is_in_it(self) -> None:
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

        model, other = net(), net()
        optimizer, its = adamw(model), adamw(other)
        ft.bind(optimizer, model)
        fresh = ft.bind(its, other)
        step(model, optimizer)
        for each in (model, other):
            ft.freeze(each, "[0]")
        state = get_optimizer_state_dict(model, optimizer)
        assert sorted(state["state"]) == ["1.weight", "2.weight"]
        set_optimizer_state_dict(other, its, state)
        assert sorted(moments(fresh)) == ["1.weight", "2.weight"]
        assert torch.equal(its.state[other[1].weight]["exp_avg"], optimizer.state[model[1].weight]["exp_avg"])

    @pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
    @pytest.mark.parametrize("made", [adamw, sgd])
    def test_a_distributed_checkpoint_of_a_binding_fills_a_fresh_one(self, made: Any, tmp_path: Any) -> None:
        import torch.distributed.checkpoint as dcp

        model, other = net(), net()
        binding, fresh = ft.bind(made(model), model), ft.bind(made(other), other)
        for each in (model, other):
            ft.freeze(each, "[1]")
        step(model, binding.optimizer)
        step(model, binding.optimizer, 1)
        dcp.save({"optimizer": binding.state_dict()}, checkpoint_id=tmp_path, no_dist=True)
        state = {"optimizer": fresh.state_dict()}
        assert fresh.optimizer.state == {}
        dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
        fresh.load_state_dict(state["optimizer"])
        assert sorted(moments(fresh)) == ["0.weight", "2.weight"]
        assert moments(fresh) == moments(binding)

    def test_places_without_moments_are_no_moments(self) -> None:
        model, other = net(), net()
        fresh = ft.bind(sgd(other), other)
        fresh.load_state_dict(ft.bind(sgd(model), model).state_dict())
        assert fresh.optimizer.state == {}


class TestPlainStates:
    def test_of_the_layout_that_it_was_built_with(self) -> None:
        model, other = net(), net()
        optimizer, its = adamw(model), adamw(other)
        step(model, optimizer)
        fresh = ft.bind(its, other)
        ft.freeze(other, "[1]")
        its.load_state_dict(optimizer.state_dict())
        assert sorted(moments(fresh)) == LAYERS
        ft.thaw(other)
        for a, b in zip(model, other, strict=True):
            assert torch.equal(optimizer.state[a.weight]["exp_avg"], its.state[b.weight]["exp_avg"])

    def test_with_names_of_the_users_own(self) -> None:
        model, other = net(), net()
        optimizer, its = (torch.optim.AdamW(m.named_parameters()) for m in (model, other))
        step(model, optimizer)
        fresh = ft.bind(its, other)
        its.load_state_dict(optimizer.state_dict())
        assert sorted(moments(fresh)) == LAYERS

    def test_a_bound_state_loads_into_an_optimizer_that_is_never_bound(self) -> None:
        model, other = net(), net()
        optimizer, its = adamw(model), adamw(other)
        ft.bind(optimizer, model)
        step(model, optimizer)
        ft.freeze(model, "[1]")
        its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        ft.thaw(model)
        for a, b in zip(model, other, strict=True):
            assert torch.equal(optimizer.state[a.weight]["exp_avg"], its.state[b.weight]["exp_avg"])

    def test_moments_that_were_loaded_by_position_are_put_right_when_it_is_bound(self) -> None:
        """The fresh optimizer was made over other layers than the one that was saved."""
        model, other = net(), net()
        optimizer = torch.optim.AdamW([model[0].weight, model[2].weight])
        its = torch.optim.AdamW([other[2].weight, other[0].weight])
        ft.bind(optimizer, model)
        step(model, optimizer)
        its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        ft.bind(its, other)
        assert torch.equal(its.state[other[2].weight]["exp_avg"], optimizer.state[model[2].weight]["exp_avg"])
        assert torch.equal(its.state[other[0].weight]["exp_avg"], optimizer.state[model[0].weight]["exp_avg"])


FIX = "Save it from a bound optimizer, or load it before bind(optimizer, model), into one that was built alike."


def _state_of(model: nn.Module, *parameters: nn.Parameter) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(parameters or model.parameters())
    step(model, optimizer)
    return optimizer.state_dict()


def _load_into_a_head(model: nn.Sequential) -> None:
    ft.freeze(model, "[:2]")
    optimizer = torch.optim.AdamW(model[2].parameters())
    ft.bind(optimizer, model)
    optimizer.load_state_dict(_state_of(other := net(), other[1].weight))


def _load_other_shapes(model: nn.Sequential) -> None:
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    state = _state_of(net())
    state["state"][1]["exp_avg"] = torch.zeros(2, 2)
    optimizer.load_state_dict(state)


def _load_fewer(model: nn.Sequential) -> None:
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    optimizer.load_state_dict(_state_of(other := net(), other[0].weight, other[1].weight))


def _load_another_model(model: nn.Sequential) -> None:
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    optimizer.load_state_dict(ft.bind(adamw(other := net(4)), other).optimizer.state_dict())


def _load_lost_moments(model: nn.Sequential) -> None:
    binding = ft.bind(adamw(model), model)
    step(model, binding.optimizer)
    state = binding.state_dict()
    del state["state"]["1.weight"]
    binding.load_state_dict(state)


REFUSED: list[tuple[Callable[[nn.Sequential], object], list[str]]] = [
    (
        _load_into_a_head,
        [
            "optimizer.load_state_dict(state) got a state without names, and the optimizer was built with 1 of 3 "
            "parameters, so the moments may be of other ones. It was built without:",
            "  0.weight",
            "  1.weight",
            FIX,
        ],
    ),
    (
        _load_other_shapes,
        [
            "optimizer.load_state_dict(state) got a state without names, and moments of 1 parameters of other shapes:",
            "  1.weight: saved (2, 2), in the model (4, 4)",
            FIX,
        ],
    ),
    (
        _load_fewer,
        [
            "optimizer.load_state_dict(state) got a state without names: groups of [2] parameters for groups of [3].",
            FIX,
        ],
    ),
    (
        _load_another_model,
        [
            "optimizer.load_state_dict(state) got a state of other parameters: 0 missing, 1 unknown.",
            "  unknown: 3.weight",
            "Save it with binding.state_dict(), from a binding of the same model with the same rules.",
        ],
    ),
    (
        _load_lost_moments,
        [
            "binding.load_state_dict(state) got a state that lacks the moments of 1 parameters, which were saved:",
            "  1.weight",
            "Load the driver before binding.state_dict() is asked for places to read them into.",
        ],
    ),
]


@pytest.mark.parametrize(("act", "lines"), REFUSED)
def test_the_whole_text_of_each_refusal(act: Callable[[nn.Sequential], object], lines: list[str]) -> None:
    model = net()
    with pytest.raises(BindError) as caught:
        act(model)
    assert str(caught.value).split("\n") == lines


def test_a_state_that_is_refused_changes_nothing() -> None:
    model = net()
    optimizer = adamw(model)
    binding = ft.bind(optimizer, model)
    step(model, optimizer)
    before, inside = moments(binding), list(optimizer.param_groups[0]["params"])
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 9.0
    state["state"][1]["exp_avg"] = torch.zeros(2, 2)
    with pytest.raises(BindError):
        optimizer.load_state_dict(state)
    assert moments(binding) == before
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], inside, strict=True))
