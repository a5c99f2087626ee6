"""Loops of other people, unchanged: with a plan beside the tree, and with marks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from flax.training.train_state import TrainState

import frostline.jax as fj
from frostline.errors import UnsupportedError
from only_jax.bits import moved

FORMS = pytest.mark.parametrize("form", ["plan", "marks"])
X = jnp.array([1.0, -2.0])


def params() -> dict[str, Any]:
    return {"body": jnp.ones((2, 2)), "head": {"w": jnp.full((2, 2), 0.5), "b": jnp.zeros(2)}}


def loss(p: Any) -> jax.Array:
    return ((X @ p["body"] @ p["head"]["w"] + p["head"]["b"]) ** 2).sum()


def made(form: str, tree: Any, transformation: Any, *selectors: str) -> tuple[Any, Any]:
    """The optimizer and the tree."""
    if form == "plan":
        return fj.optimizer(transformation, frozen=fj.plan(tree, *selectors)), tree
    return fj.optimizer(transformation), fj.freeze(tree, *selectors)


@FORMS
def test_a_loop_of_equinox(form: str) -> None:
    """``filter_grad`` gives a number for every array, and ``apply_updates`` takes None where nothing moves."""
    model = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    tx, model = made(form, model, optax.adamw(0.1, weight_decay=0.1), "layers[0]")

    @eqx.filter_jit
    def step(model: Any, state: Any) -> tuple[Any, Any]:
        slopes = eqx.filter_grad(lambda model: (model(X) ** 2).sum())(model)
        updates, state = tx.update(slopes, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    after, state = model, tx.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(2):
        after, state = step(after, state)
    assert moved(eqx.filter(model, eqx.is_array), eqx.filter(after, eqx.is_array)) == {
        "layers.1.weight",
        "layers.1.bias",
    }
    assert jax.tree.structure(after) == jax.tree.structure(model)


@FORMS
def test_a_train_state_of_flax_with_full_gradients(form: str) -> None:
    tx, tree = made(form, params(), optax.adamw(0.1, weight_decay=0.1), "body")
    state = TrainState.create(apply_fn=loss, params=tree, tx=tx)
    step = jax.jit(lambda state: state.apply_gradients(grads=jax.grad(loss)(state.params)))
    for _ in range(2):
        state = step(state)
    assert moved(params(), state.params) == {"head.w", "head.b"}


@FORMS
def test_an_average_across_a_thaw(form: str) -> None:
    """A target network, or an average of the weights: with a plan all trees have the plain structure."""
    transformation = optax.sgd(0.1)
    tx, tree = made(form, params(), transformation, "body")
    state, average = tx.init(tree), tree
    updates, state = tx.update(jax.grad(loss)(tree), state, tree)
    tree = optax.apply_updates(tree, updates)
    average = optax.incremental_update(tree, average, 0.5)
    assert moved(params(), average) == {"head.w", "head.b"}
    if form == "plan":
        tx = fj.optimizer(transformation, frozen=fj.plan(params()))
    else:
        tree = fj.thaw(tree)
        with pytest.raises(ValueError, match="different pytree metadata"):
            optax.incremental_update(tree, average, 0.5)
        average = fj.follow(average, fj.plan(tree))
    updates, state = tx.update(jax.grad(loss)(tree), state, tree)
    average = optax.incremental_update(optax.apply_updates(tree, updates), average, 0.5)
    assert moved(params(), average) == {"body", "head.w", "head.b"}


@FORMS
def test_a_function_over_the_moments(form: str) -> None:
    transformation = optax.adam(0.1)
    tx, tree = made(form, params(), transformation, "body")
    _, state = tx.update(jax.grad(loss)(tree), tx.init(tree), tree)
    with pytest.raises(UnsupportedError) as caught:
        optax.tree_map_params(tx, jnp.zeros_like, state)
    assert str(caught.value).split("\n") == [
        "optax.tree_map_params(optimizer(tx), f, state) asks for a state without parameters, but which of them train "
        "is part of the structure of the state.",
        "Map over the state of tx: replace(state, inner=optax.tree_map_params(tx, f, state.inner)), with the replace "
        "of dataclasses.",
    ]
    emptied = replace(state, inner=optax.tree_map_params(transformation, jnp.zeros_like, state.inner))
    assert jax.tree.structure(emptied) == jax.tree.structure(state)
    assert [bool(leaf.any()) for leaf in jax.tree.leaves(emptied)] == [True, False, False, False, False]


@FORMS
def test_gradients_that_are_accumulated(form: str) -> None:
    tx, tree = made(form, params(), optax.MultiSteps(optax.adamw(0.1), every_k_schedule=2), "body")
    state, after = tx.init(tree), tree
    for _ in range(2):
        updates, state = tx.update(jax.grad(loss)(after), state, after)
        after = optax.apply_updates(after, updates)
    assert moved(params(), after) == {"head.w", "head.b"}
