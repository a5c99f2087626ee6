"""Parameters, moments and counts on eight devices, and in two processes: they keep their shardings and their bytes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import frostline.jax as fj
from frostline.errors import MovedError
from frostline.jax._training.optimizer import Optimizer
from frostline.schedules import LinearProbe
from only_jax.bits import bits

SPECS = {"body": {"w": P("rows", "columns")}, "head": P("columns")}
X = jnp.arange(32.0).reshape(4, 8) / 32


def shardings(rows: int, columns: int) -> Any:
    mesh = jax.make_mesh((rows, columns), ("rows", "columns"), axis_types=(AxisType.Auto,) * 2)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), SPECS, is_leaf=lambda node: isinstance(node, P))


def net(seed: int = 0, *, rows: int = 4, columns: int = 2) -> dict[str, Any]:
    body, head = jax.random.split(jax.random.key(seed))
    tree = {"body": {"w": jax.random.normal(body, (8, 8))}, "head": jax.random.normal(head, (8,))}
    return jax.device_put(tree, shardings(rows, columns))


def loss(params: Any, x: jax.Array) -> jax.Array:
    return (jnp.tanh(x @ params["body"]["w"]) @ params["head"]).sum()


def transformation(plan: Any = None) -> Optimizer:
    return fj.optimizer(optax.adamw(0.1, weight_decay=0.1), frozen=plan, moments="keep")


@jax.jit
def step(params: Any, state: Any, plan: Any) -> Any:
    updates, state = transformation(plan).update(fj.grad(loss, frozen=plan)(params, X), state, params)
    trained, rest = fj.split(params, frozen=plan)
    return fj.join(optax.apply_updates(trained, updates), rest), state


def train(params: Any, state: Any, driver: fj.Driver, until: int, *, marks: bool) -> tuple[Any, Any]:
    while driver.steps < until:
        plan = None if marks else driver.plan
        with fj.guard(params, plan) as watching:
            params, state = step(params, state, plan)
            watching.verify(params)
        params = driver.step(params)
        state = transformation(None if marks else driver.plan).follow(state, params)
    return params, state


def places(tree: Any) -> list[Any]:
    """Where the arrays with dimensions are."""
    return [leaf.sharding for leaf in jax.tree.leaves(tree) if leaf.ndim]


@pytest.mark.parametrize("marks", [True, False], ids=["marks", "plan"])
def test_a_run_keeps_its_shardings_and_is_loaded_on_another_mesh(marks: bool, tmp_path: Path) -> None:
    on, driver = shardings(4, 2), fj.Driver(LinearProbe(["head"], steps=2), marks=marks)
    params = driver.start(net())
    assert places(params) == [on["body"]["w"], on["head"]]
    params, state = train(params, transformation(None if marks else driver.plan).init(params), driver, 1, marks=marks)
    fj.save_run(tmp_path, params=params, optimizer=transformation(), state=state, driver=driver)
    assert places((params, state)) == [on["body"]["w"], *[on["head"]] * 3]
    params, state = train(params, state, driver, 4, marks=marks)
    assert places((params, state)) == [on["body"]["w"], on["head"]] * 3
    # Frozen again, and its moments are parked.
    plan = fj.plan(params, "body") if marks else fj.plan(net(), "body")
    parked = transformation(plan).follow(state, fj.strip(params))
    assert places((parked.inner, parked.parked)) == [on["head"]] * 2 + [on["body"]["w"]] * 2

    resumed = fj.Driver(LinearProbe(["head"], steps=2), marks=marks)
    run = fj.load_run(tmp_path, params=net(1), optimizer=transformation(), driver=resumed)
    assert places((run.params, run.state)) == [on["body"]["w"], *[on["head"]] * 3]
    assert bits(train(run.params, run.state, resumed, 4, marks=marks)) == bits((params, state))

    other = fj.Driver(LinearProbe(["head"], steps=2), marks=marks)
    there = shardings(1, 8)
    run_there = fj.load_run(tmp_path, params=net(1, rows=1, columns=8), optimizer=transformation(), driver=other)
    assert places((run_there.params, run_there.state)) == [there["body"]["w"], *[there["head"]] * 3]
    assert bits((run_there.params, run_there.state)) == bits((run.params, run.state))


def test_the_guard_and_deltas_read_shards(tmp_path: Path) -> None:
    params = fj.freeze(net(), "body")
    with (
        pytest.raises(MovedError, match=r"First difference: at \[7, 0\], .*; 1 of 64 values"),
        fj.guard(params) as watching,
    ):
        watching.verify({**net(), "body": {"w": params["body"]["w"].at[7, 0].add(1)}})
    file = tmp_path / "delta.safetensors"
    fj.save_delta(file, params)
    delta = fj.load_delta(file, {**net(rows=2, columns=4), "head": net(1, rows=2, columns=4)["head"]})
    assert places(delta.tree) == places(net(rows=2, columns=4))
    assert bits(delta.tree) == bits(params)
    with pytest.raises(ValueError, match="another base"):
        fj.load_delta(file, net(1))


def test_each_shard_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replicated array is not read from each device, and a sharded one is not gathered on one."""
    from frostline.jax import _arrays

    tree = {
        "sharded": net()["body"]["w"],
        "whole": jax.device_put(jnp.ones(8), NamedSharding(net()["head"].sharding.mesh, P())),
    }
    monkeypatch.setattr(_arrays, "is_spread", lambda array: True)
    assert [_arrays.plain(leaf).size for leaf in jax.tree.leaves(tree)] == [64, 8]
    assert sorted(_arrays.plain(tree["sharded"]).tolist()) == sorted(np.asarray(tree["sharded"]).reshape(-1).tolist())


def test_two_processes(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(__file__).with_name("two_processes.py")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            [sys.executable, program, str(rank), str(port), tmp_path / "run"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
