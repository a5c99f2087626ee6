"""Plain pytrees on the bench: JAX and Optax alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import frostline.jax as fj
from conformance.plain_net import BatchNorm1d, Dropout, Linear, Sequential


def _batch() -> jax.Array:
    return jnp.sin(jnp.arange(20.0).reshape(5, 4))


def _linear(inputs: int, outputs: int, salt: int) -> Linear:
    def numbers(shape: tuple[int, ...], shift: int) -> jax.Array:
        count = jnp.arange(np.prod(shape), dtype=jnp.float32)
        return jnp.cos(count * 0.7 + salt + shift).reshape(shape)

    return Linear(numbers((outputs, inputs), 0), numbers((outputs,), 1))


class JaxBench:
    name = "jax"

    def layers(self) -> list[Any]:
        sizes = ((4, 3), (3, 3), (3, 2))
        return [_linear(*size, salt) for salt, size in enumerate(sizes)]

    def chain(self, *layers: Any) -> Any:
        return Sequential(*layers)

    def frozen(self, layer: Any) -> Any:
        return fj.Frozen(layer)

    def with_statistics(self) -> Any:
        first, _, last = self.layers()
        norm = BatchNorm1d(jnp.ones(3), jnp.zeros(3), jnp.zeros(3), jnp.ones(3))
        return Sequential(Sequential(first, norm, Dropout()), last)

    def tied(self) -> Any:
        first, second = (_linear(3, 3, salt) for salt in range(2))
        return Sequential(first, Linear(first.weight, second.bias))

    def path(self, position: int, part: str) -> str:
        return f"{position}.{part}"

    def at(self, index: str) -> str:
        return index

    def freeze(self, model: Any, *selectors: Any, **options: Any) -> Any:
        return fj.freeze(model, *selectors, **options)

    def thaw(self, model: Any, *selectors: Any, **options: Any) -> Any:
        return fj.thaw(model, *selectors, **options)

    def plan(self, model: Any) -> Any:
        return fj.plan(model)

    def follow(self, model: Any, plan: Any) -> Any:
        return fj.follow(model, plan)

    def trainable(self, model: Any) -> set[str]:
        return set(fj.trainable(model))

    def values(self, model: Any) -> dict[str, bytes]:
        arrays = {
            jax.tree_util.keystr(path, simple=True, separator="."): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(fj.strip(model))
        }
        return {path: np.asarray(leaf).tobytes() for path, leaf in arrays.items() if isinstance(leaf, jax.Array)}

    def output(self, model: Any) -> bytes:
        return np.asarray(model(_batch())).tobytes()

    def input_gradient(self, model: Any) -> bytes:
        return np.asarray(jax.grad(lambda batch: model(batch).sum())(_batch())).tobytes()

    def gradient(self, terms: Sequence[tuple[float, Any]], of: Any) -> Mapping[str, list[float]]:
        found = _gradient(terms, of)
        own = {path: g for path, g in found.items() if path.startswith("0.")}
        return {path.removeprefix("0."): g.ravel().tolist() for path, g in own.items()}

    def gradient_of_layer(self, terms: Sequence[tuple[float, Any]], layer: Any) -> list[Any]:
        trained = fj.trainable(tuple(model for _, model in terms))
        found = _gradient(terms)
        paths = [[path for path, array in trained.items() if array is own] for own in jax.tree.leaves(layer)]
        return [found[own[0]].ravel().tolist() if own else None for own in paths]

    def train(self, model: Any, *, steps: int, momentum_from: int = 0) -> Any:
        optimizer = fj.optimizer(optax.adamw(0.1, weight_decay=0.1))
        # Made for everything, so that what is frozen now has momentum, too.
        everything = fj.thaw(model) if momentum_from else model
        state = optimizer.init(everything)
        for _ in range(momentum_from):
            ones = jax.tree.map(jnp.ones_like, fj.split(everything)[0])
            _, state = optimizer.update(ones, state, everything)
        for _ in range(steps):
            (_, after), gradient = fj.value_and_grad(_loss, has_aux=True)(model)
            updates, state = optimizer.update(gradient, state, model)
            trained, rest = fj.split(model)
            model = _with_statistics_of(after, fj.join(optax.apply_updates(trained, updates), rest))
        return model

    def write(self, layer: Any, factor: float, *models: Any) -> Sequence[Any]:
        own = {id(leaf) for leaf in jax.tree.leaves(layer)}
        trained, rest = fj.split((layer, *models))
        written = jax.tree.map(lambda leaf: factor * leaf if id(leaf) in own else leaf, trained)
        _, *after = fj.join(written, rest)
        return after

    def guarded(self, model: Any, act: Callable[[], Any]) -> Any:
        with fj.guard(model) as watching:
            after = act()
            watching.verify(after)
        return after


def _gradient(terms: Sequence[tuple[float, Any]], *others: Any) -> dict[str, Any]:
    """The gradient by path in the tuple of all models; ties are found by identity."""

    def loss(models: Sequence[Any]) -> jax.Array:
        used = models[len(others) :]
        return jnp.stack([factor * model(_batch()).sum() for (factor, _), model in zip(terms, used, strict=True)]).sum()

    return fj.trainable(fj.grad(loss)((*others, *(model for _, model in terms))))


def _loss(model: Any) -> tuple[jax.Array, Any]:
    width = fj.trainable(fj.thaw(model))["0.0.weight" if "0.0.weight" in fj.plan(model).paths else "0.weight"].shape[1]
    output, after = model.train_step(_batch()[:, :width])
    return jnp.square(output).sum(), after


def _with_statistics_of(after: Any, model: Any) -> Any:
    """The model with the running statistics that a step returned."""
    moved = {path: leaf for path, leaf in fj.trainable(fj.thaw(fj.strip(after))).items() if "running" in path}
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    names = [jax.tree_util.keystr(path, simple=True, separator=".").strip(".") for path, _ in leaves]
    return structure.unflatten([moved.get(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True)])


bench = JaxBench()
