"""Equinox on the bench, without an adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import numpy as np

import frostline.jax as fj
from conformance.pytree_bench import PytreeBench, numbers


@dataclass
class Model:
    """A tree and the statistics of its norms, which Equinox keeps outside the tree."""

    tree: Any
    state: Any = None
    calls: int = 0


class EquinoxBench(PytreeBench):
    name = "equinox"

    def linear(self, inputs: int, outputs: int, salt: int) -> Any:
        layer = eqx.nn.Linear(inputs, outputs, key=jax.random.key(0))
        made = numbers((outputs, inputs), salt), numbers((outputs,), salt + 1)
        return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, made)

    def chain(self, *layers: Any) -> Model:
        return Model(eqx.nn.Sequential([self.tree(layer) for layer in layers]))

    def with_statistics(self) -> Model:
        first, _, last = self.layers()

        def made() -> Any:
            norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="ema")
            return eqx.nn.Sequential([eqx.nn.Sequential([first, norm, eqx.nn.Dropout(0.5)]), last])

        return Model(*eqx.nn.make_with_state(made)())

    def tied(self) -> Model:
        first, second = (self.linear(3, 3, salt) for salt in range(2))
        chain = self.chain(first, eqx.tree_at(lambda layer: layer.weight, second, first.weight))
        return self.with_tree(chain, fj.tie(chain.tree))

    def path(self, position: int, part: str) -> str:
        return f"layers.{position}.{part}"

    def at(self, index: str) -> str:
        return f"layers{index}"

    def tree(self, model: Any) -> Any:
        return model.tree if type(model) is Model else model

    def with_tree(self, model: Any, tree: Any) -> Any:
        return replace(model, tree=tree)

    def values(self, model: Any) -> dict[str, bytes]:
        state = enumerate(jax.tree.leaves(model.state))
        return super().values(model) | {f"state.{number}": np.asarray(leaf).tobytes() for number, leaf in state}

    def call(self, model: Any, x: jax.Array) -> jax.Array:
        return self.training_call(model, x)[0]

    def training_call(self, model: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        # Another key at each call, as training has.
        model.calls += 1
        keys = jax.random.split(jax.random.key(model.calls), len(x))
        if model.state is None:
            return jax.vmap(lambda x, key: model.tree(x, key=key))(x, keys), None
        mapped = jax.vmap(
            lambda x, state, key: model.tree(x, state, key=key),
            axis_name="batch",
            in_axes=(0, None, 0),
            out_axes=(0, None),
        )
        return mapped(x, model.state, keys)

    def with_new_statistics(self, model: Any, statistics: Any) -> Model:
        return replace(model, state=statistics)


bench = EquinoxBench()
