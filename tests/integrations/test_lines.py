"""The frost line of modules of other libraries: trees like any other, without an adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import Array

import frostline.jax as fj

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
Made = tuple[Any, Callable[..., Any]]


class InEquinox(eqx.Module):
    stem: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __call__(self, x: Array) -> Array:
        return self.head(self.drop(jnp.tanh(self.norm(self.stem(x))), inference=True))


def in_equinox() -> Made:
    one, two = jax.random.split(jax.random.key(0))
    stem, head = eqx.nn.Linear(3, 4, key=one), eqx.nn.Linear(4, 2, key=two)
    model = InEquinox(stem, eqx.nn.LayerNorm(4), eqx.nn.Dropout(0.5), head)
    return fj.freeze(model, "stem", "norm"), lambda model, x: jax.vmap(model)(x)


class InLinen(linen.Module):
    @linen.compact
    def __call__(self, x: Array) -> Array:
        x = linen.BatchNorm(use_running_average=True, name="norm")(linen.Dense(4, name="stem")(x))
        return linen.Dense(2, name="head")(jnp.tanh(x))


def in_linen() -> Made:
    model = InLinen()
    tree = fj.freeze(model.init(jax.random.key(0), X), "params.stem", "params.norm", "batch_stats")
    return tree, model.apply


class InNNX(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.stem, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs, use_running_average=True)
        self.head = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.head(jnp.tanh(self.norm(self.stem(x))))


def in_nnx() -> Made:
    graph, state = nnx.split(InNNX())
    return fj.freeze(state, "stem", "norm"), lambda state, x: nnx.merge(graph, state)(x)


def in_haiku() -> Made:
    def net(x: Array) -> Array:
        return hk.Linear(2, name="head")(jnp.tanh(hk.Linear(4, name="stem")(x)))

    model = hk.without_apply_rng(hk.transform(net))
    return fj.freeze(model.init(jax.random.key(0), X), "stem"), model.apply


@pytest.mark.parametrize("made", [in_equinox, in_linen, in_nnx, in_haiku])
def test_what_the_head_reads_crosses(made: Callable[[], Made]) -> None:
    tree, fn = made()
    line = fj.frostline(fn, tree, X)
    (boundary,) = line.boundary
    assert (boundary.shape, boundary.dtype, boundary.bytes) == ((4,), "float32", 16)
    assert line.flops == 2 * 4 * 3
    value = line.below(X)
    assert np.asarray(line.above(tree, *value)).tobytes() == np.asarray(fn(fj.strip(tree), X)).tobytes()


def test_statistics_of_the_batch_train_in_linen_and_so_the_line_is_before_them() -> None:
    """What is a floating array of the tree trains unless it is frozen."""
    tree, fn = in_linen()
    line = fj.frostline(fn, fj.thaw(tree, "batch_stats"), X)
    assert [each.name for each in line.boundary] == ["InLinen.stem.add"]
