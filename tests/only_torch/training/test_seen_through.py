"""Optimizers inside of optimizers are bound, bindings end, and a step with nothing to move is an error."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import frostline.torch as ft
from frostline import Rule
from frostline.errors import BindError
from frostline.schedules import LISA


class Accelerated(Optimizer):
    """As Accelerate wraps one: a subclass that never calls `Optimizer.__init__` and asks the optimizer for all."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> Any:  # type: ignore[override]
        return self.optimizer.param_groups

    def state_dict(self) -> Any:
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self.optimizer.load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        return self.optimizer.step(closure)


class Plain:
    """As Lightning wraps one: no optimizer at all, with the same methods."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["optimizer"], name)


class Lookahead(Accelerated):
    """As timm wraps one: under another name, with the same list of groups."""

    def __init__(self, base_optimizer: Optimizer) -> None:
        self._base_optimizer = base_optimizer

    optimizer = property(lambda self: self._base_optimizer)  # type: ignore[assignment]


class SAM(Optimizer):
    """Sharpness-aware minimization as it is usually copied: it has its own state, and saves it alone."""

    def __init__(self, base_optimizer: Optimizer) -> None:
        super().__init__(base_optimizer.param_groups, {})
        self.base_optimizer = base_optimizer
        self.base_optimizer.param_groups = self.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.base_optimizer.step(closure)

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self.base_optimizer.param_groups = self.param_groups


WRAPPERS = [lambda optimizer: optimizer, Accelerated, Plain, Lookahead, SAM, lambda each: Accelerated(Lookahead(each))]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3)))


def adamw(model: nn.Module, lr: float = 0.1) -> Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)


def step(model: nn.Module, optimizer: Any, seed: int = 0) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


def inside(optimizer: Any, model: nn.Module) -> list[list[str]]:
    names = {id(p): path for path, p in model.named_parameters()}
    return [[names.get(id(p), "other") for p in group["params"]] for group in optimizer.param_groups]


@pytest.mark.parametrize("wrapped", WRAPPERS)
def test_a_wrapped_optimizer_follows(wrapped: Callable[[Optimizer], Any]) -> None:
    model = net()
    optimizer = wrapped(adamw(model))
    ft.bind(optimizer, model)
    ft.freeze(model, "[:2]")
    assert inside(optimizer, model) == [["2.weight"]]
    before = [p.clone() for p in model.parameters()]
    step(model, optimizer)
    assert [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)] == [True, True, False]


@pytest.mark.parametrize("wrapped", WRAPPERS)
@pytest.mark.parametrize("bound_first", [True, False])
def test_its_own_state_dict_resumes_a_driver(wrapped: Callable[[Optimizer], Any], bound_first: bool) -> None:
    def made(lr: float) -> tuple[nn.Module, Any, Callable[[], ft.Driver]]:
        model = net()
        optimizer = wrapped(adamw(model, lr))
        schedule = LISA(["[0]", "[1]"], sampled=1, period=1, always=["[2]"], seed=1)
        return model, optimizer, lambda: ft.Driver(schedule, model, optimizer)

    def train(model: nn.Module, optimizer: Any, driver: ft.Driver, until: int) -> None:
        while driver.steps < until:
            step(model, optimizer, driver.steps)
            driver.step()

    model, optimizer, drive = made(0.1)
    driver = drive()
    train(model, optimizer, driver, 5)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), driver.state_dict()))
    train(model, optimizer, driver, 9)
    other, its, drive = made(7.0)
    if bound_first or wrapped is SAM:  # SAM itself loads into the state that it has beside the optimizer
        fresh = drive()
        its.load_state_dict(saved[1])
    else:
        its.load_state_dict(saved[1])
        fresh = drive()
    other.load_state_dict(saved[0])
    fresh.load_state_dict(saved[2])
    train(other, its, fresh, 9)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


class TestRelease:
    def test_the_optimizer_is_as_it_was_built(self) -> None:
        model = net()
        optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.1)
        binding = ft.bind(optimizer, model)
        step(model, optimizer)
        before = {path: optimizer.state[p]["exp_avg"].clone() for path, p in model.named_parameters()}
        ft.freeze(model, "[0]", "[2]")
        binding.release()
        binding.release()
        assert inside(optimizer, model) == [["0.weight", "1.weight", "2.weight"]]
        assert optimizer.param_groups[0]["param_names"] == ["0.weight", "1.weight", "2.weight"]
        assert all(torch.equal(optimizer.state[p]["exp_avg"], before[path]) for path, p in model.named_parameters())
        ft.thaw(model)
        ft.freeze(model, "[1]")
        assert inside(optimizer, model) == [["0.weight", "1.weight", "2.weight"]]
        assert "param_groups" in optimizer.state_dict()

    def test_others_and_what_joined_stay(self) -> None:
        model, other = net(), nn.Parameter(torch.ones(1))
        ft.freeze(model, "[0]")
        optimizer = torch.optim.AdamW([model[1].weight, other, model[2].weight])
        binding = ft.bind(optimizer, model, rules=[Rule("[2]", lr_scale=0.5)])
        ft.thaw(model)
        assert inside(optimizer, model) == [["other", "0.weight", "1.weight"], ["2.weight"]]
        ft.freeze(model, "[1]")
        binding.release()
        assert inside(optimizer, model) == [["1.weight", "other", "0.weight"], ["2.weight"]]

    def test_a_second_fit_on_the_same_model(self) -> None:
        model, kept = net(), []
        for _ in range(2):
            optimizer = adamw(model)
            kept.append(optimizer)
            with ft.bind(optimizer, model):
                ft.freeze(model, "[0]")
                step(model, optimizer)
        binding = ft.bind(kept[0], model)
        assert inside(binding.optimizer, model) == [["1.weight", "2.weight"]]

    def test_without_it_the_second_one_is_refused(self) -> None:
        """The negative control."""
        model = net()
        first = adamw(model)
        ft.bind(first, model)
        with pytest.raises(BindError, match=r"would give 3 of 3 parameters to two optimizers"):
            ft.bind(adamw(model), model)

    def test_a_block_that_fails_releases_too(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.freeze(model, "[0]")
        with pytest.raises(ZeroDivisionError), ft.bind(optimizer, model):
            _ = 1 / 0
        assert len(optimizer.param_groups[0]["params"]) == 3

    def test_a_copy_of_one_that_was_released_stays_so(self) -> None:
        model = net()
        binding = ft.bind(adamw(model), model)
        binding.release()
        other_model, other = copy.deepcopy((model, binding))
        ft.freeze(other_model, "[0]")
        assert len(other.optimizer.param_groups[0]["params"]) == 3


class NeverMade(Optimizer):
    """A subclass that never calls `Optimizer.__init__`, and wraps nothing."""

    def __init__(self) -> None:
        self.param_groups = []


def _step_of(model: nn.Sequential, *frozen: str) -> None:
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    ft.freeze(model, *frozen)
    optimizer.step()


def _step_of_a_model_that_grew(model: nn.Sequential) -> None:
    optimizer = adamw(model)
    ft.bind(optimizer, model)
    ft.freeze(model)
    model.add_module("adapter", nn.Linear(4, 4))
    optimizer.step()


def _ask_a_released_one(model: nn.Sequential) -> None:
    binding = ft.bind(adamw(model), model)
    binding.release()
    binding.state_dict()


BIND_FIX = "Bind the optimizer that takes the step: bind(torch.optim.AdamW(model.parameters()), model)."
REFUSED: list[tuple[Callable[[nn.Sequential], object], list[str]]] = [
    (
        lambda model: _step_of(model, "**"),
        [
            "optimizer.step() has nothing to move: all of its 3 parameters are frozen.",
            'Thaw what is to train: thaw(model, "head").',
        ],
    ),
    (
        _step_of_a_model_that_grew,
        [
            "optimizer.step() has nothing to move: 2 parameters train that it is not bound to:",
            "  adapter.weight",
            "  adapter.bias",
            "Bind when the model is complete: binding.release(); binding = bind(optimizer, model).",
        ],
    ),
    (
        _ask_a_released_one,
        [
            "binding.state_dict() asks a binding that was released, of 3 parameters.",
            "Bind again: binding = bind(optimizer, model).",
        ],
    ),
    (
        lambda model: ft.bind(NeverMade(), model),
        [
            "bind(NeverMade, model) never called Optimizer.__init__, so it has no hooks, and has no optimizer as "
            ".optimizer or .base_optimizer.",
            BIND_FIX,
        ],
    ),
    (
        lambda model: ft.bind(torch.optim.lr_scheduler.StepLR(adamw(model), 2), model),  # type: ignore[arg-type]
        [
            "bind(StepLR, model) is not an optimizer of PyTorch, and has no optimizer as .optimizer or "
            ".base_optimizer.",
            BIND_FIX,
        ],
    ),
]


@pytest.mark.parametrize(("act", "lines"), REFUSED)
def test_the_whole_text_of_each_refusal(act: Callable[[nn.Sequential], object], lines: list[str]) -> None:
    with pytest.raises(BindError) as caught:
        act(net())
    assert str(caught.value).split("\n") == lines


def test_an_optimizer_that_waits_for_its_turn_takes_empty_steps() -> None:
    model = net()
    first, second = adamw(model[:1]), adamw(model[1:])
    ft.bind(first, model, "[0]")
    ft.bind(second, model, "[1:]")
    ft.freeze(model, "[0]")
    step(model, second)
    first.step()
    assert inside(first, model) == [[]]
