"""The mode of a module as a leaf, which ``jax.jit`` turns into an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import frostline.jax as fj

Asked = Callable[[Any], Any]


def tree() -> dict[str, Any]:
    return {"norm": {"w": jnp.ones(2), "inference": False}, "head": jnp.ones(2)}


def of_frozen(tree: Any) -> Any:
    return tree["norm"]["inference"]


def of_loss(tree: Any) -> Any:
    def loss(tree: Any) -> Any:
        return tree["head"].sum(), tree["norm"]["inference"]

    return fj.value_and_grad(loss, has_aux=True)(tree)[0][1]


@pytest.mark.parametrize("asked", [of_frozen, of_loss])
def test_a_mode_is_set_inside_of_jit(asked: Asked) -> None:
    assert bool(jax.jit(asked)(fj.freeze(tree(), "norm")))
    assert not bool(jax.jit(asked)(fj.freeze(tree(), "norm", "!norm", allow_empty=True)))


@pytest.mark.parametrize("asked", [of_frozen, of_loss])
def test_a_mode_is_set_in_a_tree_that_came_out_of_jit(asked: Asked) -> None:
    back = jax.jit(lambda tree: tree)(tree())
    assert asked(fj.freeze(back, "norm")) is True
    assert not bool(asked(back))


def test_a_frozen_use_sets_a_mode_inside_of_jit() -> None:
    assert bool(jax.jit(lambda tree: fj.Frozen(tree)["norm"]["inference"])(tree()))


def test_a_mask_with_several_elements_is_not_a_mode() -> None:
    many = {"w": jnp.ones(2), "inference": jnp.zeros(2, bool)}
    assert fj.freeze(many)["inference"].tolist() == [False, False]
