"""Flax NNX on the bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.nnx.filterlib import PathIn

from conformance.pytree_bench import batch, numbers
from frostline.integrations import nnx as fn


def _linear(inputs: int, outputs: int, salt: int) -> nnx.Linear:
    layer = nnx.Linear(inputs, outputs, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = numbers((outputs, inputs), salt).T, numbers((outputs,), salt + 1)
    return layer


class NnxBench:
    name = "nnx"

    def layers(self) -> list[Any]:
        sizes = ((4, 3), (3, 3), (3, 2))
        return [_linear(*size, salt) for salt, size in enumerate(sizes)]

    def chain(self, *layers: Any) -> Any:
        return nnx.Sequential(*layers)

    def frozen(self, layer: Any) -> Any:
        return fn.Frozen(layer)

    def with_statistics(self) -> Any:
        first, _, last = self.layers()
        trunk = nnx.Sequential(first, nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
        return nnx.Sequential(trunk, last)

    def tied(self) -> Any:
        first, second = (_linear(3, 3, salt) for salt in range(2))
        second.kernel = first.kernel
        return nnx.Sequential(first, second)

    def path(self, position: int, part: str) -> str:
        return f"layers.{position}.{'kernel' if part == 'weight' else part}"

    def at(self, index: str) -> str:
        return f"layers{index}"

    def freeze(self, model: Any, *selectors: Any, **options: Any) -> Any:
        return fn.freeze(model, *selectors, **options)

    def thaw(self, model: Any, *selectors: Any, **options: Any) -> Any:
        return fn.thaw(model, *selectors, **options)

    def plan(self, model: Any) -> Any:
        return fn.plan(model)

    def follow(self, model: Any, plan: Any) -> Any:
        return fn.follow(model, plan)

    def trainable(self, model: Any) -> set[str]:
        return set(map(_name, fn.trainable(model).paths))

    def values(self, model: Any) -> dict[str, bytes]:
        # A random key never changes; the count beside it moves.
        found = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngKey)))
        return {_name(path): np.asarray(variable[...]).tobytes() for path, variable in found}

    def output(self, model: Any) -> bytes:
        return np.asarray(model(batch())).tobytes()

    def input_gradient(self, model: Any) -> bytes:
        return np.asarray(jax.grad(lambda x: model(x).sum())(batch())).tobytes()

    def gradient(self, terms: Sequence[tuple[float, Any]], of: Any) -> Mapping[str, list[float]]:
        paths = [(0, *path) for path in fn.trainable(of).paths]
        return {_name(path[1:]): g.ravel().tolist() for path, g in _gradient(terms, PathIn(*paths), of).items()}

    def gradient_of_layer(self, terms: Sequence[tuple[float, Any]], layer: Any) -> list[Any]:
        models = nnx.List([model for _, model in terms])
        found = _gradient(terms, fn.trainable(models))
        paths = {id(variable): path for path, variable in nnx.to_flat_state(nnx.state(models))}
        own = [found.get(paths[id(variable)]) for variable in (layer.kernel, layer.bias)]
        return [None if gradient is None else gradient.ravel().tolist() for gradient in own]

    def train(self, model: Any, *, steps: int, momentum_from: int = 0) -> Any:
        optimizer = _with_momentum(model, momentum_from)
        differentiated = nnx.grad(_loss, argnums=nnx.DiffState(0, optimizer.wrt))
        for _ in range(steps):
            model.train()
            optimizer.update(model, differentiated(model, batch()[:, : _width(model)]))
        return model

    def write(self, layer: Any, factor: float, *models: Any) -> Sequence[Any]:
        for variable in jax.tree.leaves(layer, is_leaf=lambda node: isinstance(node, nnx.Param)):
            variable[...] *= factor
        return models

    def guarded(self, model: Any, act: Callable[[], Any]) -> Any:
        with fn.guard(model):
            return act()


def _name(path: Sequence[Any]) -> str:
    return ".".join(map(str, path))


def _loss(model: Any, x: jax.Array) -> jax.Array:
    return jnp.square(model(x)).sum()


def _width(model: Any) -> int:
    first = next(module for _, module in nnx.iter_modules(model) if isinstance(module, nnx.Linear))
    return int(first.in_features)


def _with_momentum(model: Any, steps: int) -> nnx.Optimizer[Any]:
    """AdamW for the trainable part, with momentum from a time when it trained everything."""
    tx = optax.adamw(0.1, weight_decay=0.1)
    before, after = (nnx.Optimizer(model, tx, wrt=wrt) for wrt in (nnx.Param, fn.trainable(model)))
    params = nnx.state(model, nnx.Param)
    saved = nnx.as_pure(params)
    for _ in range(steps):
        before.update(model, jax.tree.map(jnp.ones_like, params))
        nnx.update(model, saved)
    kept = [path for path, _ in nnx.to_flat_state(nnx.state(after.opt_state))]
    nnx.update(after.opt_state, nnx.state(before.opt_state, PathIn(*kept)))
    return after


def _gradient(terms: Sequence[tuple[float, Any]], wrt: Any, *others: Any) -> dict[Any, Any]:
    def loss(models: Any) -> jax.Array:
        used = models[len(others) :]
        return jnp.stack([factor * model(batch()).sum() for (factor, _), model in zip(terms, used, strict=True)]).sum()

    models = nnx.List([*others, *(model for _, model in terms)])
    found = nnx.grad(loss, argnums=nnx.DiffState(0, wrt))(models)
    return {path: variable[...] for path, variable in nnx.to_flat_state(found)}


bench = NnxBench()
