"""Frozen weights are arguments of compiled code: the program does not grow with them, and new values are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import frostline.jax as fj
from only_jax.programs import longest_constant, recorded

X = jnp.ones((2, 4))


def params(width: int) -> dict[str, Any]:
    return {"body": jnp.full((4, width), 0.5), "head": jnp.ones((width, 1))}


def loss(params: Any, x: jax.Array) -> jax.Array:
    return (jnp.tanh(x @ params["body"]) @ params["head"]).sum()


def by_parts(width: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    tx = optax.adamw(0.1)

    def step(trained: Any, rest: Any, state: Any, x: jax.Array) -> Any:
        gradient = jax.grad(lambda trained: loss(fj.join(trained, rest), x))(trained)
        updates, state = tx.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state

    trained, rest = fj.split(params(width), "head")
    return step, (trained, rest, tx.init(trained), X)


def by_plan(width: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    plan = fj.plan(params(width), "body")
    tx = fj.optimizer(optax.adamw(0.1), frozen=plan)

    def step(params: Any, state: Any, x: jax.Array) -> Any:
        updates, state = tx.update(fj.grad(loss, frozen=plan)(params, x), state, params)
        trained, rest = fj.split(params, frozen=plan)
        return fj.join(optax.apply_updates(trained, updates), rest), state

    return step, (params(width), tx.init(params(width)), X)


def by_marks(width: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    tx = fj.optimizer(optax.adamw(0.1))

    def step(params: Any, state: Any, x: jax.Array) -> Any:
        updates, state = tx.update(jax.grad(loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    marked = fj.freeze(params(width), "body")
    return step, (marked, tx.init(marked), X)


@pytest.mark.parametrize("form", [by_parts, by_plan, by_marks])
def test_the_program_does_not_grow_with_the_frozen_part(form: Callable[..., Any]) -> None:
    sizes = []
    for width in (16, 4096):
        step, given = form(width)
        text = jax.jit(step).lower(*given).as_text()
        sizes.append(len(text))
        assert longest_constant(text) < 20
    assert max(sizes) < 10_000
    # Only the numbers of the shapes are longer.
    assert sizes[1] - sizes[0] < 500


def test_a_step_that_closes_over_the_rest_contains_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    trained, rest = fj.split({**params(4096), "body": jnp.arange(4 * 4096.0).reshape(4, 4096)}, "head")
    texts = recorded(monkeypatch)
    jax.jit(lambda trained: loss(fj.join(trained, rest), X))(trained)
    assert [longest_constant(text) > 100_000 for text in texts] == [True]


def test_new_values_of_the_rest_are_seen() -> None:
    step, (trained, rest, state, x) = by_parts(4)
    compiled = jax.jit(step)
    before, _ = compiled(trained, rest, state, x)
    after, _ = compiled(trained, jax.tree.map(lambda leaf: -leaf, rest), state, x)
    assert (before["head"] != after["head"]).all()
    assert compiled._cache_size() == 1


def test_the_trainable_part_is_donated_and_the_rest_stays() -> None:
    step, (trained, rest, state, x) = by_parts(4)
    compiled = jax.jit(step, donate_argnums=(0, 2))
    trained = jax.tree.map(jnp.copy, trained)
    compiled(trained, rest, state, x)
    assert [leaf.is_deleted() for leaf in jax.tree.leaves((trained, rest))] == [True, False]


def test_shardings_of_the_plain_tree_fit() -> None:
    """Those of the parameters, made before anything is frozen, are those of the step with a plan beside the tree."""
    mesh = jax.make_mesh((1,), ("data",))
    shardings = jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec("data")), params(4))
    step, (tree, state, x) = by_plan(4)
    after, _ = jax.jit(step, in_shardings=(shardings, None, None), out_shardings=(shardings, None))(tree, state, x)
    assert jax.tree.map(lambda leaf: leaf.sharding, after) == shardings
    assert after["body"].tolist() == tree["body"].tolist()
