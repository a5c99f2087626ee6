"""The owners of the arrays in a state: what paths say, compared with states for few parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import frostline.jax as fj
from frostline.jax._training.optimizer import optimizer
from frostline.jax._training.state_arrays import StateReader


def reader(init: Callable[[Any], Any], params: Any) -> StateReader:
    leaves, tree = jax.tree.flatten(params)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    return StateReader(init, tree, shapes, tuple(sorted(fj.trainable(params))))


def owners(read: StateReader) -> dict[str, str | None]:
    return {array.key: array.owner for array in read.whole.values()}


@pytest.mark.parametrize("count", [4, 64])
def test_the_states_that_a_thaw_needs_do_not_grow_with_the_tree(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    params = {f"layer_{number:02}": jnp.ones(1) for number in range(count)}
    tx = optimizer(optax.adamw(0.1))
    state = tx.init(fj.freeze(params, "layer_00"))
    made = []
    original = StateReader.state
    monkeypatch.setattr(StateReader, "state", lambda self, names: made.append(len(set(names))) or original(self, names))
    assert tx.follow(state, fj.thaw(params)).cohorts[1] == ("layer_00",)
    assert sorted(made) == [1, 2]


def ordered(params: Any) -> tuple[Any, ...]:
    return tuple(jnp.zeros_like(leaf) for leaf in jax.tree.leaves(params))


def in_a_dict(params: Any) -> dict[str, Any]:
    return {"a": jax.tree.map(jnp.zeros_like, params)}


MISLEADING: dict[str, tuple[Callable[[Any], Any], dict[str, str | None]]] = {
    "a node with the name of a parameter": (
        in_a_dict,
        {"['a']['a']['w']": "a.w", "['a']['w']": "w"},
    ),
    "a number with the name of a parameter": (
        lambda params: {"w": jnp.zeros(()), "moments": jax.tree.map(jnp.zeros_like, params)},
        {"['w']": None, "['moments']['a']['w']": "a.w", "['moments']['w']": "w"},
    ),
    "no names at all": (ordered, {}),
    "one vector": (optax.flatten(optax.trace(0.9)).init, {}),
}


@pytest.mark.parametrize("name", MISLEADING)
def test_where_paths_mislead_states_for_many_sets_tell_the_owners(name: str) -> None:
    init, expected = MISLEADING[name]
    read = reader(init, {"a": {"w": jnp.ones(2)}, "w": jnp.ones(2)})
    found = owners(read)
    assert {key: owner for key, owner in found.items() if owner is not None or key in expected} == expected
    assert bool(read.shared) == (name in {"no names at all", "one vector"})


@pytest.mark.parametrize(
    "tx",
    [optax.adam(0.1), optax.adafactor(0.1), optax.sm3(0.1), optax.lbfgs(), optax.MultiSteps(optax.adam(0.1), 2)],
    ids=["adam", "adafactor", "sm3", "lbfgs", "accumulation"],
)
def test_paths_and_states_for_many_sets_agree(tx: Any) -> None:
    params = {"a": {"w": jnp.ones((2, 3))}, "w": jnp.ones(2), "z": jnp.ones(1)}
    read = reader(tx.init, params)
    by_sets = {"".join(path): owner for path, owner in read._owners_by_sets().items()}
    assert owners(read) == by_sets
