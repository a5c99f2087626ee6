"""A whole run in a folder: stop and go is bitwise the run that was not stopped, and what does not fit is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import frostline.jax as fj
from frostline.errors import RunError, ScheduleError, UnsupportedError
from frostline.jax._training.optimizer import Optimizer
from frostline.jax._training.run_data import write_arrays
from frostline.schedules import LISA, LinearProbe, Schedule, ULMFiT
from only_jax.bits import bits

BLOCKS, CUTS = ["[0]", "[1]"], (0, 1, 3, 4)
SCHEDULES: list[Schedule] = [
    LinearProbe(["[2]"], steps=3),
    ULMFiT([*BLOCKS, "[2]"], period=2),
    LISA(BLOCKS, sampled=1, period=1, always=["[2]"], seed=1),
]


def net(seed: int = 0) -> list[dict[str, Any]]:
    keys = jax.random.split(jax.random.key(seed), 3)
    return [{"w": jax.random.normal(key, (3, 3)), "b": jnp.zeros(3), "steps": 3} for key in keys]


def loss(params: Any, x: jax.Array) -> jax.Array:
    for layer in params:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return (x**2).sum()


def transformation(plan: Any = None) -> Optimizer:
    return fj.optimizer(optax.adamw(0.1, weight_decay=0.1), frozen=plan, moments="keep")


@jax.jit
def marked_step(params: Any, state: Any, factors: Any, x: jax.Array) -> Any:
    updates, state = transformation().update(fj.grad(loss)(params, x), state, params)
    trained, rest = fj.split(params)
    return fj.join(optax.apply_updates(trained, factors.scaled(updates)), rest), state


@jax.jit
def planned_step(params: Any, state: Any, factors: Any, x: jax.Array, plan: Any) -> Any:
    updates, state = transformation(plan).update(fj.grad(loss, frozen=plan)(params, x), state, params)
    trained, rest = fj.split(params, frozen=plan)
    return fj.join(optax.apply_updates(trained, factors.scaled(updates)), rest), state


def train(params: Any, state: Any, driver: fj.Driver, until: int, *, marks: bool) -> tuple[Any, Any]:
    while driver.steps < until:
        x = jax.random.normal(jax.random.key(driver.steps), (5, 3))
        step, beside = (marked_step, ()) if marks else (planned_step, (driver.plan,))
        params, state = step(params, state, driver.factors, x, *beside)
        params = driver.step(params)
        state = transformation(None if marks else driver.plan).follow(state, params)
    return params, state


@pytest.mark.parametrize("marks", [True, False], ids=["marks", "plan"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: type(schedule).__name__)
def test_stop_and_go_is_the_run_at_every_step(schedule: Schedule, marks: bool, tmp_path: Path) -> None:
    driver = fj.Driver(schedule, marks=marks)
    params = driver.start(net())
    state = transformation(None if marks else driver.plan).init(params)
    for cut in CUTS:
        params, state = train(params, state, driver, cut, marks=marks)
        fj.save_run(tmp_path / str(cut), params=params, optimizer=transformation(), state=state, driver=driver, n=cut)
    params, state = train(params, state, driver, 6, marks=marks)
    for cut in CUTS:
        resumed = fj.Driver(schedule, marks=marks)
        run = fj.load_run(tmp_path / str(cut), params=net(1), optimizer=transformation(), driver=resumed)
        assert (resumed.steps, run.more) == (cut, {"n": cut})
        assert run.plan == resumed.plan
        other, other_state = train(run.params, run.state, resumed, 6, marks=marks)
        assert jax.tree.structure((other, other_state)) == jax.tree.structure((params, state))
        assert bits((other, other_state)) == bits((params, state))


def made(*selectors: str) -> tuple[Any, Optimizer, Any]:
    params, tx = fj.freeze(net(), *selectors), transformation()
    return params, tx, tx.init(params)


def test_without_a_driver_the_tree_is_frozen_as_it_was(tmp_path: Path) -> None:
    params, tx, state = made("[0]")
    fj.save_run(tmp_path, params=params, optimizer=tx, state=state)
    run = fj.load_run(tmp_path, params=fj.freeze(net(1), "[1]"), optimizer=tx)
    assert jax.tree.structure(run.params) == jax.tree.structure(params)
    assert bits((run.params, run.state)) == bits((params, state))
    plan = fj.plan(net(), "[0]")
    beside = transformation(plan).init(net())
    fj.save_run(tmp_path, params=net(), optimizer=transformation(plan), state=beside)
    run = fj.load_run(tmp_path, params=net(1), optimizer=tx)
    assert type(run.params) is list
    assert run.plan == plan
    assert bits(run.state) == bits(beside)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data-2", "run.json"]


def test_the_parameters_alone_are_a_run_and_all_kinds_of_leaves_come_back(tmp_path: Path) -> None:
    tree = {
        "w": jnp.ones(2, jnp.bfloat16),
        "key": jax.random.key(3),
        "old": np.arange(3, dtype=np.int64),
        "none": jnp.zeros((0, 2)),
        "use": fj.Frozen({"w": jnp.ones(2)}),
        "name": "a",
        "rate": 0.5,
        "function": jnp.tanh,
        "a.b/c": {"[0]": jnp.ones(1)},
    }
    fj.save_run(tmp_path, params=tree)
    start = {**tree, "w": jnp.zeros(2, jnp.bfloat16), "key": jax.random.key(0), "old": np.zeros(3, np.int64)}
    start |= {"use": fj.Frozen({"w": jnp.zeros(2)}), "name": "b", "rate": 0.1, "a.b/c": {"[0]": jnp.zeros(1)}}
    found = fj.load_run(tmp_path, params=start).params
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    assert (found["name"], found["rate"], found["function"]) == ("a", 0.5, jnp.tanh)
    assert jax.random.key_data(found["key"]).tolist() == [0, 3]
    assert type(found["old"]) is np.ndarray
    assert bits({**found, "key": 0}) == bits({**tree, "key": 0})
    assert not found["w"].committed


def test_a_longer_schedule_goes_on_and_another_past_is_said(tmp_path: Path) -> None:
    driver = fj.Driver(LinearProbe(["[2]"], steps=3))
    params = driver.start(net())
    for _ in range(2):
        params = driver.step(params)
    fj.save_run(tmp_path, params=params, driver=driver)
    longer = fj.Driver(LinearProbe(["[2]"], steps=5))
    assert fj.load_run(tmp_path, params=net(1), driver=longer).plan == driver.plan
    assert longer.steps == 2
    other = fj.Driver(LinearProbe(["[1]"], steps=3))
    other.start(net())
    with pytest.raises(ScheduleError, match="at step 0: saved"):
        fj.load_run(tmp_path, params=net(1), driver=other)
    assert other.steps == 0


def test_a_crash_leaves_the_run_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params, tx, state = made("[0]")
    fj.save_run(tmp_path, params=params, optimizer=tx, state=state, epoch=1)

    def crash(folder: Path, *rest: Any) -> None:
        write_arrays(folder, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr("frostline.jax._training.run.write_arrays", crash)
    with pytest.raises(KeyboardInterrupt):
        fj.save_run(tmp_path, params=jax.tree.map(lambda leaf: leaf * 0, params), epoch=2)
    monkeypatch.undo()
    run = fj.load_run(tmp_path, params=net(1), optimizer=tx)
    assert (run.more, bits(run.params)) == ({"epoch": 1}, bits(params))
    fj.save_run(tmp_path, params=params, optimizer=tx, state=state, epoch=3)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data-3", "run.json"]


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (
            {"params": [*net(), {"w": jnp.ones(2)}]},
            [
                "holds another model: 1 leaf missing, 0 unknown.",
                "  missing: 3.w",
                "Save the run with the same parameters and optimizer: save_run(folder, params=params, ...).",
            ],
        ),
        (
            {"params": [{**net()[0], "b": jnp.zeros(4)}, *net()[1:]]},
            [
                "holds 1 array of another shape or dtype:",
                "  0.b: saved float32 (3,), here float32 (4,)",
                "Save the run with the same parameters and optimizer: save_run(folder, params=params, ...).",
            ],
        ),
        (
            {"params": net(), "optimizer": fj.optimizer(optax.sgd(0.1, momentum=0.9))},
            [
                "got the state of another transformation: 4 arrays missing, 13 unknown.",
                "  missing: 1.b/0.trace",
                "  missing: 1.w/0.trace",
                "  missing: 2.b/0.trace",
                "  unknown: /0.count",
                "  unknown: 1.b/0.count",
                "Save the run with the same parameters and optimizer: save_run(folder, params=params, ...).",
            ],
        ),
        (
            {"params": net(), "driver": fj.Driver(LinearProbe(["[2]"], steps=3))},
            ["holds no driver.", "Load it without: load_run(folder, params=params)."],
        ),
    ],
    ids=["another model", "another shape", "another transformation", "no driver"],
)
def test_what_does_not_fit_is_said(given: dict[str, Any], lines: list[str], tmp_path: Path) -> None:
    params, tx, state = made("[0]")
    fj.save_run(tmp_path, params=params, optimizer=tx, state=state)
    with pytest.raises(RunError) as caught:
        fj.load_run(tmp_path, **given)
    assert str(caught.value).splitlines() == [f"load_run({str(tmp_path)!r}, ...) {lines[0]}", *lines[1:]]


def test_a_folder_without_a_run_or_with_another_file(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        fj.load_run(tmp_path, params=net())
    assert str(caught.value) == (
        f"load_run({str(tmp_path)!r}, ...) finds no run.json in the folder.\n"
        "Save one first: save_run(folder, params=params, driver=driver)."
    )
    (tmp_path / "run.json").write_text(json.dumps({"format": "frostline.run"}))
    with pytest.raises(RunError, match=r"cannot read run\.json: "):
        fj.load_run(tmp_path, params=net())


def test_what_cannot_be_saved_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, tx, state = made("[0]")
    with pytest.raises(RunError, match=r"got state=, but no optimizer=\."):
        fj.save_run(tmp_path, params=params, state=state)
    with pytest.raises(RunError, match=r"got optimizer=, but no state=\."):
        fj.save_run(tmp_path, params=params, optimizer=tx)
    with pytest.raises(RunError, match="got something that is not JSON: Object of type ArrayImpl"):
        fj.save_run(tmp_path, params=params, seed=jnp.ones(1))
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(UnsupportedError) as caught:
        fj.save_run(tmp_path, params=params)
    assert str(caught.value) == (
        f"save_run({str(tmp_path)!r}, ...) writes and reads arrays by Orbax, which is not installed.\n"
        "Install it: pip install orbax-checkpoint."
    )
    assert not [*tmp_path.iterdir()]
