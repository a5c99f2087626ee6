"""Laws of all schedules and policies."""

import json
import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import frostline.schedules
from frostline.schedules import LISA, BAdam, HiFT, Phase, Policy, Schedule
from schedules.examples import POLICIES, SCHEDULES, phases, policies, schedules, seeds, small

NAMES = vars(frostline.schedules)


@given(schedules, st.integers(0, 10**9))
def test_a_schedule_is_a_pure_function_of_the_step(schedule: Schedule, step: int) -> None:
    again = pickle.loads(pickle.dumps(schedule))
    assert schedule.at(step) == schedule.at(step) == again.at(step)


@given(schedules)
def test_changes_agree_with_a_visit_of_each_step(schedule: Schedule) -> None:
    changes = dict(schedule.changes(80))
    phase = None
    for step in range(80):
        assert (step in changes) == (schedule.at(step) != phase)
        phase = changes.get(step, phase)
        assert schedule.at(step) == phase


@given(schedules, st.integers(0, 80))
def test_the_next_change_is_the_first_one(schedule: Schedule, step: int) -> None:
    now, later = schedule.at(step), schedule.next_change(step)
    stop = step + 80 if later is None else later
    assert all(schedule.at(between) == now for between in range(step, stop))
    assert later is None or (later > step and schedule.at(later) != now)


@given(schedules)
def test_a_schedule_equals_itself_after_each_format(schedule: Schedule) -> None:
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
    assert Schedule.from_json(schedule.to_json()) == schedule
    assert Schedule.from_toml(schedule.to_toml()) == schedule
    assert type(schedule).from_toml(schedule.to_toml()).to_json() == schedule.to_json()


@given(policies)
def test_a_policy_equals_itself_after_each_format(policy: Policy) -> None:
    assert Policy.from_json(policy.to_json()) == policy
    assert Policy.from_toml(policy.to_toml()) == policy


@given(st.one_of(schedules, policies, phases))
def test_the_printed_source_creates_an_equal_value(value: object) -> None:
    again = eval(repr(value), dict(NAMES))
    assert again == value
    assert hash(again) == hash(value)


@given(phases)
def test_a_phase_equals_itself_after_its_data(phase: Phase) -> None:
    assert Phase.from_dict(json.loads(json.dumps(phase.to_dict()))) == phase


@given(st.integers(1, 9), st.data(), seeds, small, st.integers(0, 10**12))
def test_lisa_draws_the_given_number_of_blocks(
    count: int, data: st.DataObject, seed: int, period: int, step: int
) -> None:
    sampled = data.draw(st.integers(1, count))
    schedule = LISA([f"b{number}" for number in range(count)], sampled, period, ["head"], seed)
    everything, head, *drawn = schedule.at(step).frozen
    assert (everything, head) == ("**", "!head")
    assert len(drawn) == len(set(drawn)) == sampled
    assert schedule.at(step // period * period) == schedule.at(step)


@given(st.integers(1, 9), st.sampled_from(["random", "ascending", "descending"]), seeds, small, st.integers(0, 10**9))
def test_badam_visits_each_block_once_an_epoch(count: int, order: str, seed: int, period: int, epoch: int) -> None:
    blocks = [f"b{number}" for number in range(count)]
    schedule = BAdam(blocks, period, order, seed=seed)
    turns = [schedule.at((epoch * count + turn) * period).name for turn in range(count)]
    assert sorted(turns) == blocks


@given(st.integers(1, 9), small, st.sampled_from(["bottom2up", "top2down", "random"]), seeds, st.integers(0, 10**9))
def test_hift_visits_each_block_once_a_cycle(count: int, size: int, order: str, seed: int, cycle: int) -> None:
    blocks = [f"b{number}" for number in range(count)]
    schedule = HiFT(blocks, size, order, seed=seed)
    steps = range(cycle * schedule.groups, (cycle + 1) * schedule.groups)
    assert {schedule.cycle(step) for step in steps} == {cycle}
    assert sorted(word[1:] for step in steps for word in schedule.at(step).frozen[1:]) == blocks


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_resumed_at_any_step_has_the_same_phases(name: str) -> None:
    """The schedule goes through its text, as after a restart: it has no hidden state to lose."""
    whole = [SCHEDULES[name].at(step) for step in range(30)]
    for cut in range(30):
        again = Schedule.from_json(SCHEDULES[name].to_json())
        assert [again.at(step) for step in range(cut, 30)] == whole[cut:]


BLOCKED = ("torch", "jax", "flax", "numpy", "equinox", "optax", "matplotlib")
WALK = f"""
import sys
for name in {BLOCKED}: sys.modules[name] = None
from frostline.schedules import Schedule
for text in sys.stdin.read().split("\\0"):
    schedule = Schedule.from_json(text)
    print([schedule.at(step) for step in range(40)])
"""


def run_afresh(program: str, text: str, seed: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, env=environment)


def test_a_new_process_without_a_framework_has_the_same_phases() -> None:
    """The process has other hash seeds, and has drawn nothing before."""
    texts = "\0".join(schedule.to_json() for schedule in SCHEDULES.values())
    expected = [str([schedule.at(step) for step in range(40)]) for schedule in SCHEDULES.values()]
    for seed in ("1", "31337"):
        done = run_afresh(WALK, texts, seed)
        assert (done.stderr, done.stdout.splitlines()) == ("", expected)


def test_the_probe_notices_phases_that_depend_on_hashes_or_a_framework() -> None:
    """The probe of the test above fails where it should."""
    program = "print(sorted('abcdef', key=hash))"
    assert run_afresh(program, "", "1").stdout != run_afresh(program, "", "31337").stdout
    assert (
        "import of numpy halted"
        in run_afresh(WALK.replace("import Schedule", "import Schedule; import numpy"), "", "1").stderr
    )


# --- policies

numbers = st.floats(-1e6, 1e6) | st.integers(-5, 5)


def walk(policy: Policy, state: dict, observations: list[dict]) -> list[tuple[dict, Phase]]:
    path = []
    for observation in observations:
        state, phase = policy.update(state, observation)
        path.append((state, phase))
    return path


@st.composite
def runs(draw: st.DrawFn) -> tuple[Policy, list[dict[str, float]]]:
    policy = draw(policies)
    names = [*getattr(policy, "blocks", ()), getattr(policy, "watch", ""), "learning_rate"]
    return policy, draw(st.lists(st.fixed_dictionaries(dict.fromkeys(names, numbers)), max_size=12))


@given(runs())
def test_a_policy_resumed_at_any_observation_has_the_same_phases(
    run: tuple[Policy, list[dict[str, float]]],
) -> None:
    policy, observations = run
    path = walk(policy, policy.init(), observations)
    for cut in range(len(observations)):
        state = json.loads(json.dumps(path[cut][0], allow_nan=False))
        assert state == path[cut][0]
        assert policy.phase(state) == path[cut][1]
        assert walk(Policy.from_json(policy.to_json()), state, observations[cut + 1 :]) == path[cut + 1 :]


@given(runs())
def test_an_update_does_not_change_its_input(run: tuple[Policy, list[dict[str, float]]]) -> None:
    policy, observations = run
    state = policy.init()
    for observation in observations:
        before, seen = json.dumps(state), dict(observation)
        after, _ = policy.update(state, observation)
        assert (json.dumps(state), observation) == (before, seen)
        state = after


@settings(max_examples=30)
@given(runs())
def test_policies_that_freeze_from_the_input_never_freeze_the_last_block(
    run: tuple[Policy, list[dict[str, float]]],
) -> None:
    policy, observations = run
    blocks = getattr(policy, "blocks", None)
    for _, phase in walk(policy, policy.init(), observations) if blocks else []:
        assert phase.frozen == tuple(blocks[: len(phase.frozen)])
        assert len(phase.frozen) < len(blocks)


def test_every_kind_has_an_example() -> None:
    """A new schedule or policy without an example fails here."""
    kinds = {name for name, kind in NAMES.items() if isinstance(kind, type) and issubclass(kind, Schedule | Policy)}
    assert kinds - {"Schedule", "Policy"} == {*SCHEDULES, *POLICIES}
