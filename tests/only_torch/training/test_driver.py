"""A driver freezes and thaws by a schedule, at the rates that it says, and lets nobody else notice."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim.lr_scheduler import StepLR

import frostline.torch as ft
from frostline import NoMatchError
from frostline.errors import BindError, PlanMismatchError, ScheduleError, TiedError, WrappedError
from frostline.schedules import (
    FreezeOut,
    HiFT,
    LinearProbe,
    Phase,
    Phases,
    Plateau,
    Policy,
    Schedule,
    Span,
    ULMFiT,
)

BODY = {"0.weight", "0.bias", "1.weight", "1.bias"}
HEAD = {"2.weight", "2.bias"}
RATED = Phases([Span(0, 2, Phase(rates=[("[0]", 0.5)])), Span(2, None, Phase(["[0]"], rates=[("[1].bias", 0.0)]))])


def net() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 1.0, **options})


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A step in which each gradient is 1."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()


def how_far(model: nn.Module, before: dict[str, torch.Tensor]) -> dict[str, float]:
    return {path: round(float((before[path] - p).mean()), 4) for path, p in model.state_dict().items()}


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {path: tensor.clone() for path, tensor in model.state_dict().items()}


class TestFollowing:
    def test_making_it_enacts_step_0_and_each_step_the_next_one(self) -> None:
        model = net()
        driver = ft.Driver(ULMFiT(["[0]", "[1]", "[2]"], period=2, decay=1), model, sgd(model))
        seen = []
        for _ in range(6):
            seen.append((driver.steps, len(ft.trainable(model)), driver.phase.name))
            driver.step()
        assert seen == [
            (0, 2, "1 of 3 blocks"),
            (1, 2, "1 of 3 blocks"),
            (2, 4, "2 of 3 blocks"),
            (3, 4, "2 of 3 blocks"),
            (4, 6, "3 of 3 blocks"),
            (5, 6, "3 of 3 blocks"),
        ]

    def test_the_phase_of_a_step_decides_what_moves(self) -> None:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        driver = ft.Driver(HiFT(["[0]", "[1]", "[2]"]), model, optimizer)
        moved = []
        for _ in range(4):
            before = copied(model)
            train(model, optimizer)
            driver.step()
            moved.append({path for path, far in how_far(model, before).items() if far})
        parts = [{f"{number}.weight", f"{number}.bias"} for number in range(3)]
        assert moved == [*parts, parts[0]]

    def test_a_policy_judges_by_the_steps_for_which_there_is_an_observation(self) -> None:
        model = net()
        driver = ft.Driver(Plateau([Phase(["**", "![2]"]), Phase()], patience=2), model, sgd(model))
        trainable = []
        for observation in ({"loss": 1.0}, {}, {"loss": 1.0}, {}, {"loss": 1.0, "accuracy": 0.1}, {"loss": 9.0}):
            driver.step(**observation)
            trainable.append(len(ft.trainable(model)))
        assert (driver.steps, trainable) == (6, [2, 2, 2, 2, 6, 6])

    def test_a_schedule_looks_at_no_observation(self) -> None:
        model = net()
        driver = ft.Driver(LinearProbe(["[2]"], steps=1), model, sgd(model))
        driver.step(loss=float("nan"))
        assert len(ft.trainable(model)) == 6

    def test_several_optimizers(self) -> None:
        model = net()
        one = torch.optim.SGD(model[:2].parameters(), lr=1.0)
        other = torch.optim.AdamW(model[2].parameters(), lr=1.0)
        bindings = [ft.bind(one, model, "[:2]"), ft.bind(other, model, "[2]")]
        driver = ft.Driver(LinearProbe(["[2]"], steps=1), model, bindings)
        inside = [[len(group["params"]) for group in each.param_groups] for each in (one, other)]
        driver.step()
        assert (inside, [len(one.param_groups[0]["params"])]) == ([[0], [2]], [4])
        assert driver.bindings == tuple(bindings)

    def test_changes_by_hand_last_until_the_next_phase(self) -> None:
        model = net()
        driver = ft.Driver(LinearProbe(["[2]"], steps=2), model, sgd(model))
        ft.thaw(model, "[1]")
        driver.step()
        assert len(ft.trainable(model)) == 4
        ft.freeze(model, "[2]")
        driver.step()
        assert len(ft.trainable(model)) == 6

    def test_a_step_without_a_change_reads_nothing_of_the_model(self) -> None:
        model = net()
        driver = ft.Driver(LinearProbe(["[2]"], steps=4), model, sgd(model))
        driver._model = driver._inventory = None
        for _ in range(3):
            driver.step()
        with pytest.raises(AttributeError):
            driver.step()

    def test_rates_that_change_freeze_nothing_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = net()
        driver = ft.Driver(FreezeOut(["[0]", "[1]", "[2]"], steps=8, t0=0.5, spacing="linear"), model, sgd(model))
        calls = []
        real = ft._training.driver.follow_plan
        monkeypatch.setattr(
            "frostline.torch._training.driver.follow_plan",
            lambda *args, **options: calls.append(driver.steps) or real(*args, **options),
        )
        for _ in range(8):
            driver.step()
        # Made before the step is counted.
        assert calls == [3, 5, 7]


class TestLog:
    def test_each_change_is_one_line(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="frostline")
        model = net()
        driver = ft.Driver(LinearProbe(["[2]"], steps=3), model, sgd(model))
        for _ in range(5):
            driver.step()
        assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
            ("frostline", "INFO", "step 0: freeze 4 (0.bias, 0.weight, 1.bias, ...); probe"),
            ("frostline", "INFO", "step 3: thaw 4 (0.bias, 0.weight, 1.bias, ...); fine-tune"),
        ]

    def test_a_phase_without_a_name_and_both_ways_at_once(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="frostline")
        model = net()
        spans = [Span(0, 1, Phase(["**", "![2].bias"])), Span(1, None, Phase(["**", "![1].bias"]))]
        driver = ft.Driver(Phases(spans), model, sgd(model))
        driver.step()
        assert caplog.messages == [
            "step 0: freeze 5 (0.bias, 0.weight, 1.bias, ...)",
            "step 1: freeze 1 (2.bias), thaw 1 (1.bias)",
        ]

    def test_nothing_changes_nothing_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="frostline")
        model = net()
        ft.Driver(Phases([Span(0, None, Phase())]), model, sgd(model)).step()
        assert caplog.messages == []


class TestRates:
    def test_parameters_of_one_group_step_at_their_own_factors(self) -> None:
        model = net()
        optimizer = sgd(model)
        driver = ft.Driver(RATED, model, optimizer)
        found = []
        for _ in range(3):
            before = copied(model)
            train(model, optimizer)
            driver.step()
            found.append(how_far(model, before))
        half = {"0.weight": 0.5, "0.bias": 0.5, "1.weight": 1.0, "1.bias": 1.0, "2.weight": 1.0, "2.bias": 1.0}
        assert found == [half, half, half | {"0.weight": 0.0, "0.bias": 0.0, "1.bias": 0.0}]

    @pytest.mark.parametrize("kind", ["float", "tensor"])
    def test_between_steps_the_group_has_the_very_same_rate_and_list(self, kind: str) -> None:
        model = net()
        rate = 0.1 + 0.2 if kind == "float" else torch.tensor(0.3)
        optimizer = sgd(model, lr=rate, foreach=False)
        driver = ft.Driver(RATED, model, optimizer)
        (group,) = optimizer.param_groups
        rate, params = group["lr"], group["params"]
        inside: list[list[tuple[float, int]]] = []
        optimizer.register_step_pre_hook(
            lambda *_: inside.append([(float(g["lr"]), len(g["params"])) for g in optimizer.param_groups])
        )
        for _ in range(2):
            train(model, optimizer)
            driver.step()
            assert optimizer.param_groups == [group]
            assert group["lr"] is rate
            assert group["params"] is params
        assert [[(round(lr, 6), count) for lr, count in groups] for groups in inside] == 2 * [[(0.15, 2), (0.3, 4)]]

    @pytest.mark.parametrize("first", ["scheduler", "driver"])
    def test_a_scheduler_of_the_learning_rate_sees_no_factor(self, first: str) -> None:
        model = net()
        optimizer = sgd(model)
        made: dict[str, Callable[[], Any]] = {
            "scheduler": lambda: StepLR(optimizer, step_size=1, gamma=0.5),
            "driver": lambda: ft.Driver(RATED, model, optimizer),
        }
        order = sorted(made, key=lambda name: name != first)
        parts = {name: made[name]() for name in order}
        steps = []
        for _ in range(3):
            before = copied(model)
            train(model, optimizer)
            parts["scheduler"].step()
            parts["driver"].step()
            steps.append([how_far(model, before)[path] for path in ("0.bias", "1.bias", "2.bias")])
        assert steps == [[0.5, 1.0, 1.0], [0.25, 0.5, 0.5], [0.0, 0.0, 0.25]]
        assert parts["scheduler"].get_last_lr() == [0.125]

    def test_a_step_that_fails_keeps_no_factor(self) -> None:
        model = net()
        optimizer = sgd(model)
        driver = ft.Driver(RATED, model, optimizer)

        def broken() -> float:
            raise KeyboardInterrupt

        def of_all(look: Callable[[], Any]) -> list[Any]:
            with pytest.raises(KeyboardInterrupt):
                optimizer.step(broken)
            assert len(optimizer.param_groups) == 2
            return look()

        assert of_all(lambda: optimizer.state_dict()["param_groups"][0]["lr"]) == 1.0
        assert of_all(lambda: driver.bindings[0].state_dict()["groups"][0]["lr"]) == 1.0
        ft.freeze(model, "[1]")
        before = copied(model)
        assert of_all(lambda: train(model, optimizer)) is None
        assert set(how_far(model, before).values()) == {0.5, 0.0, 1.0}
        assert [group["lr"] for group in optimizer.param_groups] == [1.0]

    def test_a_second_driver_takes_the_place_of_the_first(self) -> None:
        model = net()
        binding = ft.bind(sgd(model), model)
        ft.Driver(RATED, model, binding)
        ft.Driver(Phases([Span(0, None, Phase(rates=[("**", 0.25)]))]), model, binding)
        before = copied(model)
        train(model, binding.optimizer)
        assert set(how_far(model, before).values()) == {0.25}

    def test_a_parameter_that_was_replaced_keeps_its_factor(self) -> None:
        model = net()
        optimizer = sgd(model)
        ft.Driver(RATED, model, optimizer)
        model.load_state_dict({path: torch.zeros_like(p) for path, p in model.state_dict().items()}, assign=True)
        train(model, optimizer)
        assert float(model[0].bias.detach().mean()) == -0.5


class TestRefused:
    """Each text as a whole; the model and the optimizer are as they were."""

    def refused(self, error: type[Exception], along: Any, model: nn.Module, optimizer: Any = None) -> str:
        optimizer = sgd(model) if optimizer is None else optimizer
        with pytest.raises(error) as caught:
            ft.Driver(along, model, optimizer)
        assert all(p.requires_grad for p in model.parameters())
        if isinstance(optimizer, torch.optim.Optimizer):
            assert not optimizer._optimizer_step_pre_hooks
        return str(caught.value)

    @pytest.mark.parametrize(
        "along",
        [
            Phases([Span(0, 40_000, Phase()), Span(40_000, None, Phase(["[2].wight"]))]),
            Phases([Span(0, 40_000, Phase()), Span(40_000, None, Phase(rates=[("[2].wight", 0.5)]))]),
            FreezeOut(["[0]", "[2].wight"], steps=10**6),
            Plateau([Phase(), Phase(), Phase(["**", "![2].wight"])], patience=9),
        ],
        ids=["late phase", "late rate", "part", "policy"],
    )
    def test_a_typo_that_comes_late(self, along: Schedule | Policy) -> None:
        taken_back = "!" if isinstance(along, Plateau) else ""
        assert self.refused(NoMatchError, along, net()) == (
            f"'{taken_back}[2].wight' matches none of the 6 parameters.\n"
            "Closest paths:\n"
            "  2.weight\n"
            "  1.weight\n"
            "  0.weight\n"
            "Fix the pattern, or pass allow_empty=True if matching nothing is what you want."
        )

    def test_two_names_of_one_tensor_that_disagree(self) -> None:
        model = net()
        model[1].weight = nn.Parameter(torch.zeros(3, 3))
        model.append(nn.Linear(3, 3))
        model[3].weight = model[1].weight
        self.refused(TiedError, Phases([Span(0, 9, Phase()), Span(9, None, Phase(["**", "![3]"]))]), model)

    def test_a_wrapper_that_would_ignore_a_change_later(self) -> None:
        model = nn.Sequential(DistributedLike(nn.Linear(2, 2)))
        late = Phases([Span(0, 40_000, Phase()), Span(40_000, None, Phase(["**"]))])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("frostline.torch._wrappers.DistributedDataParallel", DistributedLike)
            assert self.refused(WrappedError, late, model) == (
                "'0' is wrapped in DistributedLike, which noted the trainable parameters when it was made.\n"
                "It would wait for the gradients of what is frozen later, and not average those of what thaws later.\n"
                "Freeze first, then wrap: freeze(model, ...); model = DistributedLike(model)."
            )
            ft.Driver(Phases([Span(0, None, Phase())]), model, sgd(model))

    @pytest.mark.parametrize(
        ("along", "name", "shown"),
        [
            (LinearProbe, "LinearProbe", "<class 'frostline.schedules.linear_probe.LinearProbe'>"),
            ("lisa.toml", "str", "'lisa.toml'"),
            (Phase(["**"]), "Phase", "Phase(frozen=('**',))"),
        ],
    )
    def test_no_schedule(self, along: Any, name: str, shown: str) -> None:
        assert self.refused(ScheduleError, along, net()) == (
            f"Driver({name}, ...) got {shown}, which is neither a schedule nor a policy.\n"
            "Pass a schedule: Driver(LinearProbe(['head'], steps=500), ...)."
        )

    def test_several_optimizers_that_are_not_bound(self) -> None:
        model = net()
        optimizers = [torch.optim.SGD(model[:2].parameters()), torch.optim.SGD(model[2].parameters())]
        assert self.refused(BindError, LinearProbe(["[2]"], steps=1), model, optimizers) == (
            "Driver(schedule, model, [...]) is handed 2 optimizers, and SGD is not bound to its part.\n"
            'Bind each first: Driver(schedule, model, [bind(one, model, "encoder"), bind(other, model, "head")]).'
        )

    def test_a_binding_of_another_model(self) -> None:
        other = net()
        binding = ft.bind(sgd(other), other, "[2]")
        assert self.refused(BindError, LinearProbe(["[2]"], steps=1), net(), binding) == (
            "Driver(schedule, model, binding) is handed a binding with 2 of 2 parameters of another model:\n"
            "  2.weight\n"
            "  2.bias\n"
            "Bind to the same model: Driver(schedule, model, bind(optimizer, model))."
        )

    def test_an_observation_without_the_number_that_the_policy_watches(self) -> None:
        model = net()
        driver = ft.Driver(Plateau([Phase(["[0]"]), Phase()], patience=1), model, sgd(model))
        with pytest.raises(ScheduleError) as caught:
            driver.step(lost=0.5)
        assert str(caught.value) == (
            "observation['loss'] is missing among 1 numbers.\n"
            "Observed:\n"
            "  lost\n"
            "Pass it: policy.update(state, {'loss': ...})."
        )
        assert (driver.steps, len(ft.trainable(model))) == (0, 4)


class DistributedLike(DataParallel):
    """Stands for a wrapper that notes what is trainable; a real one wants several processes."""


class TestState:
    def driver(self, along: Any = None, model: nn.Module | None = None) -> ft.Driver:
        model = net() if model is None else model
        return ft.Driver(LinearProbe(["[2]"], steps=2) if along is None else along, model, sgd(model))

    def refused(self, error: type[Exception], driver: ft.Driver, state: Any) -> str:
        before = ft.plan(driver._model)
        with pytest.raises(error) as caught:
            driver.load_state_dict(state)
        assert (ft.plan(driver._model), driver.steps) == (before, 0)
        return str(caught.value)

    def test_it_is_json(self) -> None:
        driver = self.driver(Plateau([Phase(["[0]"]), Phase()], patience=3))
        driver.step(loss=0.5)
        driver.step(loss=0.75)
        assert json.loads(json.dumps(driver.state_dict())) == {
            "format": "frostline.driver",
            "version": 1,
            "schedule": {
                "format": "frostline.policy",
                "version": 1,
                "policy": "Plateau",
                "phases": [{"frozen": ["[0]"]}, {"frozen": []}],
                "patience": 3,
                "delta": 0.0,
                "watch": "loss",
            },
            "step": 2,
            "state": {"place": 0, "best": 0.5, "waited": 1},
            "plan": {
                "format": "frostline.plan",
                "version": 1,
                "frozen": ["0.bias", "0.weight"],
                "trainable": ["1.bias", "1.weight", "2.bias", "2.weight"],
            },
        }

    def test_loading_freezes_the_model_as_it_was(self, caplog: pytest.LogCaptureFixture) -> None:
        saved, driver = self.driver(), self.driver()
        for _ in range(2):
            saved.step()
        caplog.set_level(logging.INFO, logger="frostline")
        driver.load_state_dict(saved.state_dict())
        assert (driver.steps, len(ft.trainable(driver._model))) == (2, 6)
        assert caplog.messages == ["step 2: thaw 4 (0.bias, 0.weight, 1.bias, ...); fine-tune"]
        ft.freeze(driver._model, "[0]")
        driver.load_state_dict(saved.state_dict())
        assert len(ft.trainable(driver._model)) == 6

    def test_factors_hold_again(self) -> None:
        saved, driver = self.driver(RATED), self.driver(RATED)
        for _ in range(2):
            saved.step()
        driver.load_state_dict(saved.state_dict())
        before = copied(driver._model)
        train(driver._model, driver.bindings[0].optimizer)
        assert set(how_far(driver._model, before).items()) == {
            ("0.weight", 0.0),
            ("0.bias", 0.0),
            ("1.weight", 1.0),
            ("1.bias", 0.0),
            ("2.weight", 1.0),
            ("2.bias", 1.0),
        }

    def test_loaded_moments_wait_for_a_thaw_until_the_next_step(self) -> None:
        def made() -> tuple[nn.Module, ft.Binding, ft.Driver]:
            model = net()
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
            binding = ft.bind(optimizer, model, moments="release")
            return model, binding, ft.Driver(HiFT(["[0]", "[1]", "[2]"]), model, binding)

        model, binding, driver = made()
        driver.step()
        train(model, binding.optimizer)
        state, place = binding.state_dict(), driver.state_dict()
        assert set(state["state"]) == {"1.weight", "1.bias"}
        for driver_comes, expected in ((True, {"1.weight", "1.bias"}), (False, {"0.weight", "0.bias"})):
            model, binding, driver = made()
            binding.load_state_dict(state)
            if driver_comes:
                driver.load_state_dict(place)
            assert {"1.weight", "1.bias"} <= set(binding.state_dict()["state"])
            train(model, binding.optimizer)
            assert set(binding.state_dict()["state"]) == expected

    def test_of_another_schedule(self) -> None:
        saved = self.driver(LinearProbe(["[2]"], steps=3))
        for _ in range(3):
            saved.step()
        assert self.refused(ScheduleError, self.driver(), saved.state_dict()) == (
            "driver.load_state_dict(state) got the state of another LinearProbe: it differs in 1 field.\n"
            "  steps: saved 3, here 2\n"
            "  at step 2: saved Phase(frozen=('**', '![2]'), name='probe'), here Phase(name='fine-tune')\n"
            "Load what driver.state_dict() gave, into a driver with the same schedule."
        )
        saved = self.driver(ULMFiT(["[0]", "[2]"], period=1))
        saved.step()
        assert self.refused(ScheduleError, self.driver(), saved.state_dict()) == (
            "driver.load_state_dict(state) got the state of ULMFiT for LinearProbe.\n"
            "  at step 0: saved Phase(frozen=('[0]',), name='1 of 2 blocks'), "
            "here Phase(frozen=('**', '![2]'), name='probe')\n"
            "Load what driver.state_dict() gave, into a driver with the same schedule."
        )

    @pytest.mark.parametrize(
        "longer",
        [
            LinearProbe(["[2]"], steps=5),
            Phases([Span(0, 4, Phase(["**", "![2]"])), Span(4, None, Phase(["[0]"]))]),
        ],
    )
    def test_of_a_schedule_with_the_same_past(self, longer: Schedule) -> None:
        saved, other = self.driver(LinearProbe(["[2]"], steps=3)), self.driver(longer)
        for _ in range(3):
            saved.step()
        assert saved.phase.name == "fine-tune"
        other.load_state_dict(json.loads(json.dumps(saved.state_dict())))
        assert (other.steps, other.phase.frozen) == (3, ("**", "![2]"))
        again = self.driver(longer)
        again.load_state_dict(other.state_dict())
        assert again.steps == 3

    def test_of_a_model_with_other_paths(self) -> None:
        model = nn.Sequential(*net(), nn.Linear(2, 2))
        state = self.driver(model=model).state_dict()
        assert self.refused(PlanMismatchError, self.driver(), state) == (
            "The plan and what it is compared with have different paths: 2 missing, 0 unknown.\n"
            "Missing (only in the plan):\n"
            "  3.bias\n"
            "  3.weight\n"
            "Make both from the same model, for example with plan(model)."
        )

    def test_of_a_model_in_which_it_means_another_plan(self) -> None:
        model = net()
        model[2] = ft.Frozen(model[2])
        state = self.driver(model=model).state_dict()
        assert self.refused(ScheduleError, self.driver(), state) == (
            "driver.load_state_dict(state) got the state of another model: at step 0 the same phase gives another plan "
            "here.\n"
            "  against the saved plan: thaw 2 (2.bias, 2.weight)\n"
            "Load it into a model with the same ties and the same frozen uses."
        )

    @pytest.mark.parametrize(
        ("state", "problem"),
        [
            (None, "it is a NoneType, not an object"),
            ({"format": "frostline.plan"}, "its format is 'frostline.plan', not 'frostline.driver'"),
            (
                {"format": "frostline.driver", "version": 1, "step": 1},
                "it lacks ['plan', 'schedule', 'state']",
            ),
        ],
    )
    def test_no_state(self, state: Any, problem: str) -> None:
        assert self.refused(ScheduleError, self.driver(), state) == (
            f"driver.load_state_dict(state) got data that is not the state of a driver: {problem}.\n"
            "Load what driver.state_dict() gave, into a driver with the same schedule."
        )

    def test_a_step_or_a_state_of_a_policy_that_cannot_be(self) -> None:
        along = Plateau([Phase(["[0]"]), Phase()], patience=3)
        good = self.driver(along).state_dict()
        assert self.refused(ScheduleError, self.driver(along), {**good, "step": -1}) == (
            "driver.load_state_dict(step=-1) is -1, and must be a whole number of at least 0.\n"
            "Write driver.load_state_dict(..., step=1)."
        )
        assert self.refused(ScheduleError, self.driver(along), {**good, "state": {"place": 7}}) == (
            "Plateau(...) got a state of another policy.\n"
            "  given: {'place': 7}\n"
            "  for example: {'place': 0, 'best': None, 'waited': 0}\n"
            "Start with Plateau(...).init(), or load the state that was saved with this policy."
        )
