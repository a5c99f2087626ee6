"""A small net, gradients that do not depend on it, and steps of an optimizer over it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import frostline.jax as fj

NAMES = ("a", "b", "c")


def net() -> dict[str, Any]:
    return {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5, 3.0]]), "c": jnp.array([-1.0])}


def gradients(params: Any, number: Any) -> Any:
    """Gradients of all parameters that change from step to step."""
    shapes = {name: leaf.shape for name, leaf in net().items()}
    full = [(2.0 + jnp.sin(1.0 * number + jnp.arange(2.0)))[: np.prod(shapes[name])] for name in NAMES]
    leaves = [leaf.reshape(shapes[name]) for name, leaf in zip(NAMES, full, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)


def follow(params: Any, frozen: str) -> Any:
    """The net with exactly these parameters frozen, each named by one letter."""
    return fj.freeze(fj.thaw(params), *frozen) if frozen else fj.thaw(params)


def step(tx: Any, params: Any, state: Any, number: int) -> tuple[Any, Any]:
    updates, state = tx.update(gradients(params, number), state, params)
    return optax.apply_updates(params, updates), state


def walked(tx: Any, frozen_sets: list[str], params: Any = None, state: Any = None, first: int = 0) -> tuple[Any, Any]:
    """A step for each frozen set."""
    params = follow(net() if params is None else params, frozen_sets[0])
    state = tx.init(params) if state is None else state
    for number, frozen in enumerate(frozen_sets, start=first):
        params, state = step(tx, follow(params, frozen), state, number)
    return params, state


def raw(saved: dict[str, Any]) -> dict[str, bytes]:
    return {name: np.asarray(array).tobytes() for name, array in saved.items()}


def kept_of(saved: dict[str, Any], name: str) -> dict[str, bytes]:
    """The saved state of one parameter, without the number of its cohort."""
    found = {key: array for key, array in saved.items() if key.startswith(f"{name}/") and key != f"{name}/cohort"}
    return raw(found)
