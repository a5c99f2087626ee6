"""Small models as plain pytrees. All numbers are small integers, so that sums are exact in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, export
from jax.tree_util import register_dataclass, tree_leaves_with_path

import frostline.jax as fj

Bits = tuple[str, tuple[int, ...], bytes]


@partial(register_dataclass, data_fields=["weight", "bias"], meta_fields=[])
@dataclass(eq=False)
class Linear:
    weight: Any
    bias: Any

    def __call__(self, x: Array) -> Array:
        return x @ self.weight + self.bias


@partial(register_dataclass, data_fields=["layers"], meta_fields=[])
@dataclass(eq=False)
class Chain:
    layers: tuple[Any, ...]

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x


for model_class in (Linear, Chain):
    export.register_pytree_node_serialization(
        model_class,
        serialized_name=f"frostline.tests.{model_class.__name__}",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: (),
    )


def linear(seed: int, size: int = 3) -> Linear:
    numbers = np.random.default_rng(seed).integers(-2, 3, (size + 1, size)).astype(np.float32)
    return Linear(jnp.asarray(numbers[1:]), jnp.asarray(numbers[0]))


def chain(size: int = 3) -> Chain:
    return Chain(tuple(linear(seed, size) for seed in (1, 2, 3)))


def frozen_use(model: Chain) -> Chain:
    """The model with its second layer used frozen."""
    first, second, third = model.layers
    return Chain((first, fj.Frozen(second), third))


def frozen_by_mark(model: Chain) -> Any:
    """The model with its second layer frozen in place."""
    return fj.freeze(model, "layers[1]")


Way = Callable[[Chain], Any]
WAYS: dict[str, Way] = {"use": frozen_use, "mark": frozen_by_mark}
each_way = pytest.mark.parametrize("frozen", WAYS.values(), ids=WAYS)

FREE = {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}
HELD = {"layers.1.weight", "layers.1.bias"}


def inputs(size: int = 3, rows: int = 2) -> Array:
    return jnp.asarray(np.random.default_rng(0).integers(-2, 3, (rows, size)).astype(np.float32))


def loss(model: Any, x: Array) -> Array:
    return (model(x) ** 2).sum()


def by_hand(x: Array, model: Chain, loss: Callable[..., Array] = loss) -> Chain:
    """The gradient of a model that was split by hand, so that its second layer is not differentiated."""
    first, second, third = model.layers
    of_first, of_third = jax.grad(lambda first, third: loss(Chain((first, second, third)), x), (0, 1))(first, third)
    return Chain((of_first, Linear(None, None), of_third))


def contents(tree: Any) -> dict[str, Bits]:
    """The leaves of a tree by path, as bytes; two are equal if and only if they are bitwise equal."""
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in tree_leaves_with_path(tree)}
    return {path: (str(array.dtype), array.shape, array.tobytes()) for path, array in arrays.items()}


def descend(tree: Any, gradient: Any) -> Any:
    """One step of gradient descent on the part that trains."""
    trained, rest = fj.split(tree)
    return fj.join(jax.tree.map(lambda leaf, slope: leaf - slope, trained, gradient), rest)
