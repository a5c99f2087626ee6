"""One of two processes with two devices each: a run that is saved, goes on, and is loaded on another mesh.

python two_processes.py RANK PORT FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["JAX_NUM_CPU_DEVICES"] = "2"

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import frostline.jax as fj
from frostline.errors import MovedError
from frostline.schedules import LinearProbe


def put(values: Any, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])


def net(body: NamedSharding, head: NamedSharding, seed: int) -> dict[str, Any]:
    drawn = np.random.default_rng(seed)
    return {
        "body": {"w": put(drawn.normal(size=(8, 8)).astype("f"), body)},
        "head": put(drawn.normal(size=(8,)).astype("f"), head),
    }


def loss(params: Any, x: jax.Array) -> jax.Array:
    return (jnp.tanh(x @ params["body"]["w"]) @ params["head"]).sum()


tx = fj.optimizer(optax.adamw(0.1, weight_decay=0.1), moments="keep")


@jax.jit
def step(params: Any, state: Any, x: jax.Array) -> Any:
    updates, state = tx.update(fj.grad(loss)(params, x), state, params)
    trained, rest = fj.split(params)
    return fj.join(optax.apply_updates(trained, updates), rest), state


def train(params: Any, state: Any, driver: fj.Driver, x: jax.Array, until: int) -> tuple[Any, Any]:
    while driver.steps < until:
        with fj.guard(params) as watching:
            params, state = step(params, state, x)
            watching.verify(params)
        params = driver.step(params)
        state = tx.follow(state, params)
    return params, state


def shards(tree: Any) -> list[bytes]:
    """The bytes that this process has."""
    return [np.asarray(each.data).tobytes() for leaf in jax.tree.leaves(tree) for each in leaf.addressable_shards]


def specs(tree: Any) -> list[Any]:
    return [leaf.sharding.spec for leaf in jax.tree.leaves(tree) if leaf.ndim]


def main(rank: int, port: str, folder: Path) -> None:
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    assert (jax.process_count(), len(jax.devices())) == (2, 4)
    mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
    rows, whole = NamedSharding(mesh, P("rows")), NamedSharding(mesh, P())
    x = put(np.random.default_rng(3).normal(size=(4, 8)).astype("f"), rows)

    driver = fj.Driver(LinearProbe(["head"], steps=2))
    params = driver.start(net(rows, whole, 0))
    params, state = train(params, tx.init(params), driver, x, 1)
    fj.save_run(folder, params=params, optimizer=tx, state=state, driver=driver, epoch=1)
    params, state = train(params, state, driver, x, 4)
    assert specs((params, state)) == [P("rows"), P(), P("rows"), P(), P("rows"), P()]

    resumed = fj.Driver(LinearProbe(["head"], steps=2))
    run = fj.load_run(folder, params=net(rows, whole, 1), optimizer=tx, driver=resumed)
    other, other_state = train(run.params, run.state, resumed, x, 4)
    assert shards((other, other_state)) == shards((params, state))
    assert specs((other, other_state)) == specs((params, state))

    square = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    like = net(NamedSharding(square, P("b", "a")), NamedSharding(square, P("a")), 1)
    run = fj.load_run(folder, params=like, optimizer=tx, driver=fj.Driver(LinearProbe(["head"], steps=2)))
    assert specs((run.params, run.state)) == [P("b", "a"), P("a"), P("a"), P("a")]

    # Every process has a part of what moved.
    frozen = fj.freeze(fj.strip(params), "body")
    with pytest.raises(MovedError, match="32 of 32 values"), fj.guard(frozen) as watching:
        watching.verify(jax.tree.map(lambda leaf: leaf + 1, frozen))

    fj.save_delta(folder / "delta.safetensors", frozen)
    delta = fj.load_delta(folder / "delta.safetensors", {**fj.strip(params), "head": like["head"]})
    assert shards(delta.tree["body"]) == shards(params["body"])
    assert delta.tree["head"].sharding == like["head"].sharding


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
