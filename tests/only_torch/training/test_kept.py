"""A schedule leaves alone what was frozen before its driver was made: constants, and freezes of the user (L13)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline.errors import ConstantError, ScheduleError
from frostline.schedules import (
    LISA,
    AutoFreeze,
    BAdam,
    Egeria,
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
from only_torch.bits import contents, moved, training
from only_torch.field.evidence import state
from only_torch.freezing.constant_models import BODY, CONSTANT, HEAD, Positions

Along = Schedule | Policy
Make = Callable[[], nn.Module]
each_model = pytest.mark.parametrize(("make", "constant"), CONSTANT.items(), ids=[make.__name__ for make in CONSTANT])
PARTS = ["body", "head"]
ALONG: list[Along] = [
    LinearProbe(["head"], steps=2),
    ULMFiT(PARTS, period=1),
    HiFT(PARTS),
    LISA(PARTS, sampled=1, period=1),
    BAdam(PARTS, period=1),
    FreezeOut(PARTS, steps=20),
    Phases([Span(0, 2, Phase(["**", "!head"])), Span(2, None, Phase())]),
    Plateau([Phase(["**", "!head"]), Phase()], patience=1),
    AutoFreeze(PARTS),
    Egeria(PARTS, window=2, patience=1),
]


def run(model: nn.Module, driver: ft.Driver, steps: int = 6) -> None:
    """Trains with an unmodified loop, in which everything has weight decay and momentum."""
    optimizer = driver.bindings[0].optimizer
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        driver.step(loss=1.0, body=0.5, head=0.5)


def driven(model: nn.Module, along: Along) -> ft.Driver:
    return ft.Driver(along, model, torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1))


@each_model
@pytest.mark.parametrize("along", ALONG, ids=lambda along: type(along).__name__)
def test_a_constant_stays_still_through_every_schedule(make: Make, constant: str, along: Along) -> None:
    model = make()
    before = contents(model)
    run(model, driven(model, along))
    assert moved(before, model) & {constant} == set()
    assert moved(before, model) >= HEAD
    assert not model.get_parameter(constant).requires_grad


@each_model
def test_without_a_freeze_of_its_own_it_would_move(make: Make, constant: str) -> None:
    """Negative control: the same parameter, not constant."""
    model = make()
    model.get_parameter(constant).requires_grad_(True)
    before = contents(model)
    run(model, driven(model, LinearProbe(["head"], steps=2)))
    assert constant in moved(before, model)


@pytest.mark.parametrize(
    "along", [a for a in ALONG if not isinstance(a, HiFT | BAdam | LISA)], ids=lambda a: type(a).__name__
)
def test_a_freeze_from_before_survives(along: Along) -> None:
    model = Positions()
    ft.freeze(model, "body")
    before = contents(model)
    run(model, driven(model, along))
    assert moved(before, model) == HEAD


def test_the_module_of_a_constant_is_not_held_for_its_sake() -> None:
    """A table of positions with dropout behind it: the dropout stays on."""
    model = Positions()
    model.positions = nn.Sequential(nn.Embedding(2, 2).requires_grad_(False), nn.Dropout(0.5))
    driver = driven(model, LinearProbe(["head"], steps=1))
    assert training(model.train()) == {"", "head"}
    driver.step()
    assert training(model.train()) == {"", "body", "head", "positions", "positions.0", "positions.1"}


class TestOwnFreeze:
    def test_that_is_undone_is_followed_at_the_next_change(self) -> None:
        model = Positions()
        handle = ft.freeze(model, "body")
        driver = driven(model, LinearProbe(["head"], steps=1))
        handle.undo()
        driver.step()
        assert set(ft.trainable(model)) == BODY | HEAD

    def test_that_is_undone_without_a_change_ends_at_once(self) -> None:
        model = Positions()
        handle = ft.freeze(model, "body")
        driven(model, Phases([Span(0, None, Phase(["head.bias"]))]))
        handle.undo()
        assert set(ft.trainable(model)) == BODY | {"head.weight"}

    def test_that_is_thawed_is_followed_at_the_next_change(self) -> None:
        model = Positions()
        ft.freeze(model, "body")
        driver = driven(model, LinearProbe(["head"], steps=1))
        ft.thaw(model, "body")
        driver.step()
        assert set(ft.trainable(model)) == BODY | HEAD

    def test_after_the_driver_was_made_lasts_until_the_next_phase(self) -> None:
        model = Positions()
        driver = driven(model, LinearProbe(["head"], steps=1))
        ft.freeze(model, "body")
        driver.step()
        assert set(ft.trainable(model)) == BODY | HEAD

    def test_is_not_what_another_driver_has_frozen(self) -> None:
        model = Positions()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        binding = ft.bind(optimizer, model)
        ft.Driver(Phases([Span(0, None, Phase(["**", "!head"]))]), model, binding)
        ft.Driver(Phases([Span(0, None, Phase(["head"]))]), model, binding)
        assert set(ft.trainable(model)) == BODY


class TestMeant:
    @pytest.mark.parametrize(
        "along",
        [
            LinearProbe(["head", "table"], steps=1),
            ULMFiT(["table", "body", "head"], period=1),
            Phases([Span(0, 1, Phase(["**", "!head", "!table"])), Span(1, None, Phase())]),
            Plateau([Phase(["**", "!table"]), Phase()], patience=1),
        ],
        ids=lambda along: type(along).__name__,
    )
    def test_named_by_its_own_path_a_constant_trains(self, along: Along) -> None:
        model = Positions()
        driver = driven(model, along)
        run(model, driver, 3)
        assert set(ft.trainable(model)) == BODY | HEAD | {"table"}

    def test_what_a_phase_freezes_by_its_path_is_not_meant_to_train(self) -> None:
        model = Positions()
        run(model, driven(model, Phases([Span(0, 1, Phase(["table"])), Span(1, None, Phase())])), 2)
        assert set(ft.trainable(model)) == BODY | HEAD

    def test_thawed_before_the_driver_is_made_it_trains(self) -> None:
        model = Positions()
        ft.thaw(model, constants=True)
        driven(model, Phases([Span(0, None, Phase())]))
        assert set(ft.trainable(model)) == BODY | HEAD | {"table"}


class TestNothingElse:
    def test_is_an_error_before_anything_is_changed(self) -> None:
        model = Positions()
        ft.freeze(model, "head")
        before = state(model)
        with pytest.raises(ConstantError) as caught:
            driven(model, LinearProbe(["head"], steps=2))
        assert str(caught.value).split("\n") == [
            "Phase(frozen=('**', '!head'), name='probe') would train 2 parameters, all of which were frozen before the "
            "schedule:",
            "  head.bias",
            "  head.weight",
            'Thaw what it is to train before the driver is made: thaw(model, "head", constants=True).',
        ]
        assert state(model) == before

    @pytest.mark.parametrize("along", [HiFT(["head", "body"]), BAdam(["head", "body"], period=1)])
    def test_of_a_later_phase_is_an_error_too(self, along: Along) -> None:
        model = Positions()
        ft.freeze(model, "body")
        before = state(model)
        with pytest.raises(ConstantError, match="would train 2 parameters"):
            driven(model, along)
        assert state(model) == before

    def test_of_a_phase_that_a_policy_comes_to_is_an_error_at_that_step(self) -> None:
        model = Positions()
        ft.freeze(model, "body")
        driver = driven(model, Plateau([Phase(["**", "!head"]), Phase(["**", "!body"])], patience=1))
        driver.step(loss=1.0)
        before = state(model)
        with pytest.raises(ConstantError):
            driver.step(loss=1.0)
        assert (driver.steps, state(model) == before) == (1, True)

    def test_a_phase_that_trains_nothing_anyway_is_none(self) -> None:
        model = Positions()
        ft.freeze(model, "body")
        driven(model, Phases([Span(0, None, Phase(["**"]))]))
        assert ft.trainable(model) == {}


class TestLog:
    def test_says_it_once(self, caplog: pytest.LogCaptureFixture) -> None:
        model = Positions()
        with caplog.at_level(logging.INFO, "frostline"):
            run(
                model,
                driven(
                    model,
                    Phases(
                        [Span(n, n + 1, Phase(["head"] if n % 2 else [])) for n in range(5)] + [Span(5, None, Phase())]
                    ),
                ),
            )
        said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert said == ["step 0: leaves 1 parameter frozen that was frozen before the schedule (table)"]

    def test_is_silent_where_no_phase_freezes_anything(self, caplog: pytest.LogCaptureFixture) -> None:
        model = Positions()
        with caplog.at_level(logging.INFO, "frostline"):
            run(model, driven(model, Phases([Span(0, None, Phase())])))
        assert caplog.records == []

    def test_is_silent_where_no_phase_would_train_it(self, caplog: pytest.LogCaptureFixture) -> None:
        model = Positions()
        ft.freeze(model, "body")
        with caplog.at_level(logging.WARNING, "frostline"):
            run(model, driven(model, Phases([Span(0, None, Phase(["**", "!head"]))])))
        assert caplog.records == []


class TestResume:
    def test_keeps_what_was_kept(self) -> None:
        """Also where the user does not freeze it anew."""
        model = Positions()
        ft.freeze(model, "body.bias")
        driver = driven(model, LinearProbe(["head"], steps=1))
        driver.step()
        saved = json.loads(json.dumps(driver.state_dict()))
        other = Positions()
        again = driven(other, LinearProbe(["head"], steps=1))
        again.load_state_dict(saved)
        assert set(ft.trainable(other)) == {"body.weight"} | HEAD == set(ft.trainable(model))
        assert again.state_dict() == driver.state_dict()

    def test_keeps_it_at_the_next_change(self) -> None:
        model = Positions()
        ft.freeze(model, "body.bias")
        saved = driven(model, LinearProbe(["head"], steps=1)).state_dict()
        other = Positions()
        again = driven(other, LinearProbe(["head"], steps=1))
        again.load_state_dict(saved)
        again.step()
        assert set(ft.trainable(other)) == {"body.weight"} | HEAD

    def test_of_a_model_that_had_no_constants_is_as_it_was(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        assert sorted(driven(model, LinearProbe(["[1]"], steps=1)).state_dict()) == [
            "format",
            "plan",
            "schedule",
            "state",
            "step",
            "version",
        ]

    def test_of_another_model_is_refused(self) -> None:
        model = Positions()
        driver = driven(model, LinearProbe(["head"], steps=1))
        driver.step()
        saved = driver.state_dict()
        saved["kept"] = ["table", "body.bias"]
        for _ in range(2):
            with pytest.raises(ScheduleError):
                driven(Positions(), Phases([Span(0, None, Phase())])).load_state_dict(saved)
