"""Positions in schedules and policies, and the phases that are known beforehand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.plan import Plan
from frostline.schedules import FreezeOut, Phase, Phases, Plateau, Policy, Schedule, Span
from frostline.schedules.walk import begin, check, resume, stays
from schedules.examples import LAYERS, POLICIES, SCHEDULES, schedules

NET = Inventory(
    tuple(Param(f"{part}.weight", (2,), "float32", 4) for part in ("embed", *(f"layers.{n}" for n in range(6)), "head"))
)


@given(schedules)
@settings(max_examples=40)
def test_each_step_has_the_phase_of_the_schedule(schedule: Schedule) -> None:
    walk = begin(schedule)
    for step in range(25):
        assert (walk.step, walk.phase) == (step, schedule.at(step))
        walk = walk.onward({})


@given(schedules)
@settings(max_examples=40)
def test_the_phase_is_the_same_object_until_it_changes(schedule: Schedule) -> None:
    walk, changes = begin(schedule), [0]
    for _ in range(24):
        after = walk.onward({})
        if after.phase is not walk.phase:
            changes.append(after.step)
        walk = after
    assert changes == [step for step, _ in schedule.changes(25)]


@pytest.mark.parametrize("name", SCHEDULES | POLICIES)
@pytest.mark.parametrize("step", [0, 1, 7, 30])
def test_a_position_is_restored_through_json(name: str, step: int) -> None:
    along: Any = (SCHEDULES | POLICIES)[name]
    walk = begin(along)
    for number in range(step):
        walk = walk.onward({**dict.fromkeys(LAYERS, 1.0 / (number + 1)), "loss": 1.0})
    saved = json.loads(json.dumps(walk.to_dict(walk.phase.plan(NET))))
    again = resume(along, saved, NET)
    assert again == walk
    assert again.onward({**dict.fromkeys(LAYERS, 0.5), "loss": 0.5}) == walk.onward(
        {**dict.fromkeys(LAYERS, 0.5), "loss": 0.5}
    )


@pytest.mark.parametrize("name", SCHEDULES | POLICIES)
def test_the_foreseen_phases(name: str) -> None:
    """They are all phases up to the horizon, or, for a long schedule, phases that name each part."""
    along: Any = (SCHEDULES | POLICIES)[name]
    foreseen = {phase.frozen for phase in along.foreseen}
    check(along, NET)
    if isinstance(along, Schedule):
        assert {phase.frozen for _, phase in along.changes(along.horizon)} <= foreseen
        assert {(part,) for part in along.parts} <= foreseen
    elif isinstance(along, Plateau):
        assert foreseen == {phase.frozen for phase in along.phases}
    else:
        assert foreseen == {LAYERS[:count] for count in range(6)} | {LAYERS[-1:]}


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_foreseen_phases_of_a_long_schedule_are_a_sample(period: int) -> None:
    assert len(FreezeOut(LAYERS, steps=period + 1).foreseen) <= 60


def test_by_default_a_policy_foresees_its_first_phase() -> None:
    assert Policy.foreseen.fget(POLICIES["Plateau"]) == (Phase(["**", "!head"]),)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "expected"), [("Phases", False), ("Plateau", False), ("FreezeOut", False)])
def test_schedules_with_changes_do_not_stay(name: str, expected: bool) -> None:
    assert stays((SCHEDULES | POLICIES)[name]) is expected


def test_a_schedule_of_one_phase_stays() -> None:
    assert stays(Phases([Span(0, 5, Phase()), Span(5, None, Phase())]))


def test_the_saved_position_contains_the_plan() -> None:
    walk = begin(SCHEDULES["LinearProbe"])
    saved = walk.to_dict(Plan(frozenset({"a"}), frozenset({"b"})))
    assert saved["plan"] == {"format": "frostline.plan", "version": 1, "frozen": ["a"], "trainable": ["b"]}
