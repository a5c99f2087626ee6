"""Plain pytrees on the bench: JAX and Optax alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import frostline.jax as fj
from conformance.plain_net import BatchNorm1d, Dropout, Linear, Sequential
from conformance.pytree_bench import PytreeBench, numbers


class JaxBench(PytreeBench):
    name = "jax"

    def linear(self, inputs: int, outputs: int, salt: int) -> Linear:
        return Linear(numbers((outputs, inputs), salt), numbers((outputs,), salt + 1))

    def chain(self, *layers: Any) -> Any:
        return Sequential(*layers)

    def with_statistics(self) -> Any:
        first, _, last = self.layers()
        norm = BatchNorm1d(jnp.ones(3), jnp.zeros(3), jnp.zeros(3), jnp.ones(3))
        return Sequential(Sequential(first, norm, Dropout()), last)

    def tied(self) -> Any:
        first, second = (self.linear(3, 3, salt) for salt in range(2))
        return fj.tie(Sequential(first, Linear(first.weight, second.bias)))

    def path(self, position: int, part: str) -> str:
        return f"{position}.{part}"

    def at(self, index: str) -> str:
        return index

    def call(self, model: Any, x: jax.Array) -> jax.Array:
        return model(x)

    def training_call(self, model: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        output, after = model.train_step(x)
        return output, {path: leaf for path, leaf in fj.trainable(after).items() if "running" in path}

    def with_new_statistics(self, model: Any, statistics: Any) -> Any:
        leaves, structure = jax.tree_util.tree_flatten_with_path(model)
        names = [jax.tree_util.keystr(path, simple=True, separator=".").strip(".") for path, _ in leaves]
        return structure.unflatten([statistics.get(n, leaf) for n, (_, leaf) in zip(names, leaves, strict=True)])


bench = JaxBench()
