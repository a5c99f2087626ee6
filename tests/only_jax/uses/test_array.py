"""One array, frozen where it is built."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import frostline.jax as fj
from only_jax.bits import bits, moved


def tree() -> dict[str, Any]:
    return {"scale": fj.Frozen(jnp.full(2, 3.0)), "w": jnp.ones(2)}


def loss(t: Any) -> jax.Array:
    return (jnp.sin(t["scale"]) * 0 + t["scale"] * t["w"]).sum()


def test_a_loss_gets_the_array_itself() -> None:
    for differentiated in (fj.grad(loss), jax.jit(fj.grad(loss)), fj.grad(loss, frozen=fj.plan(tree()))):
        gradient = differentiated(tree())
        assert gradient["w"].tolist() == [3.0, 3.0]
        assert fj.trainable(gradient).keys() == {"w"}
    assert fj.plan(tree()).frozen == {"scale"}


def test_in_marks_and_in_a_frozen_use() -> None:
    marked = fj.freeze({"a": tree(), "b": jnp.ones(2)}, "b")
    gradient = fj.grad(lambda t: loss(t["a"]) + t["b"].sum())(marked)
    assert bits(gradient) == bits({"a": {"w": jnp.full(2, 3.0)}})


def test_training_does_not_move_it() -> None:
    tx = fj.optimizer(optax.adamw(0.1, weight_decay=0.1))
    slopes = jax.tree.map(jnp.ones_like, tree())
    updates, _ = tx.update(slopes, tx.init(tree()), tree())
    after = optax.apply_updates(tree(), updates)
    assert moved(tree(), after) == {"w"}
    assert jax.tree.structure(after) == jax.tree.structure(tree())


def test_the_plain_tree_and_the_paths_are_those_without_it() -> None:
    assert type(fj.strip(tree())["scale"]) is type(jnp.ones(2))
    assert list(bits(tree())) == ["scale", "w"]
    assert jax.tree.leaves(fj.mask(tree())) == [False, True]


def test_elsewhere_it_is_taken_out() -> None:
    frozen = tree()["scale"]
    assert jnp.asarray(frozen).tolist() == [3.0, 3.0]
    assert (frozen * jnp.ones(2)).tolist() == [3.0, 3.0]
    over_array = jax.grad(lambda x: (fj.Frozen(x) * x).sum())(jnp.full(2, 3.0))
    assert over_array.tolist() == [3.0, 3.0]


def test_a_use_of_it_is_the_same() -> None:
    frozen = fj.Frozen(jnp.ones(2))
    assert fj.Frozen(frozen) is frozen
    assert not isinstance(frozen, jax.Array)
    assert not callable(frozen)
    assert repr(frozen) == "Frozen(Array([1., 1.], dtype=float32))"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))])
def test_a_copy_is_as_frozen(copied: Callable[[Any], Any]) -> None:
    assert fj.plan(copied(tree())) == fj.plan(tree())
    assert bits(copied(tree())) == bits(tree())
