"""Small models with a frost line, and the checks that every line must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import frostline.jax as fj

_RNG = np.random.default_rng(0)
X = jnp.asarray(_RNG.normal(size=(3, 4)), jnp.float32)
SEQUENCES = jnp.asarray(_RNG.normal(size=(3, 5, 4)), jnp.float32)


def weights(*names: str, size: int = 4) -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=(size, size)), jnp.float32) for name in names}


def net(params: Any, x: Array) -> Array:
    """Three layers; the first one's output skips the second."""
    first = jnp.tanh(x @ params["a"])
    return jnp.sin(first @ params["b"] + first) @ params["c"]


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def check_same(fn: Callable[..., Any], tree: Any, *inputs: Any) -> fj.FrostLine:
    """Checks that the output through the line is bitwise the function's, for the example and for another batch."""
    line = fj.frostline(fn, tree, *inputs)
    for batch in (inputs, jax.tree.map(lambda leaf: leaf[1:], inputs)):
        boundary = line.below(*batch)
        assert bits(line.above(tree, *boundary)) == bits(fn(fj.strip(tree), *batch))
        shapes = [(value.shape[1:], str(value.dtype)) for value in boundary]
        assert shapes == [(each.shape, each.dtype) for each in line.boundary]
        assert sum(value.nbytes for value in boundary) == len(boundary[0]) * sum(each.bytes for each in line.boundary)
    return line


def check_gradient(fn: Callable[..., Any], line: fj.FrostLine, tree: Any, *inputs: Any) -> None:
    """Checks that the gradient above a line is bitwise the function's."""
    live = fj.grad(lambda tree, *batch: _scalar(fn(tree, *batch)))(tree, *inputs)
    cut = fj.grad(lambda tree, *boundary: _scalar(line.above(tree, *boundary)))(tree, *line.below(*inputs))
    assert bits(cut) == bits(live)


def _scalar(output: Any) -> Array:
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(output)), jnp.zeros(()))
