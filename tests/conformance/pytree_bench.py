"""The common part of all benches of pytrees: trees are values, and every verb returns a new one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import frostline.jax as fj


def batch() -> jax.Array:
    return jnp.sin(jnp.arange(20.0).reshape(5, 4))


def numbers(shape: tuple[int, ...], salt: int) -> jax.Array:
    count = jnp.arange(np.prod(shape), dtype=jnp.float32)
    return jnp.cos(count * 0.7 + salt).reshape(shape)


class PytreeBench(ABC):
    """A model is a tree; each library builds, calls and steps it in its own way."""

    name: str

    @abstractmethod
    def linear(self, inputs: int, outputs: int, salt: int) -> Any: ...

    @abstractmethod
    def chain(self, *layers: Any) -> Any: ...

    @abstractmethod
    def with_statistics(self) -> Any: ...

    @abstractmethod
    def tied(self) -> Any: ...

    @abstractmethod
    def at(self, index: str) -> str: ...

    @abstractmethod
    def call(self, model: Any, x: jax.Array) -> jax.Array:
        """What the model computes for a batch."""

    @abstractmethod
    def training_call(self, model: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        """The output in training mode, and the new statistics."""

    @abstractmethod
    def with_new_statistics(self, model: Any, statistics: Any) -> Any:
        """The model with the statistics of a call."""

    @abstractmethod
    def path(self, position: int, part: str) -> str: ...

    def tree(self, model: Any) -> Any:
        """The tree of a model, which may have more than its tree."""
        return model

    def with_tree(self, model: Any, tree: Any) -> Any:
        """The model with another tree."""
        return tree

    def layers(self) -> list[Any]:
        sizes = ((4, 3), (3, 3), (3, 2))
        return [self.linear(*size, salt) for salt, size in enumerate(sizes)]

    def frozen(self, layer: Any) -> Any:
        return fj.Frozen(self.tree(layer))

    def freeze(self, model: Any, *selectors: Any, **options: Any) -> Any:
        return self.with_tree(model, fj.freeze(self.tree(model), *selectors, **options))

    def thaw(self, model: Any, *selectors: Any, **options: Any) -> Any:
        return self.with_tree(model, fj.thaw(self.tree(model), *selectors, **options))

    def plan(self, model: Any) -> Any:
        return fj.plan(self.tree(model))

    def follow(self, model: Any, plan: Any) -> Any:
        return self.with_tree(model, fj.follow(self.tree(model), plan))

    def trainable(self, model: Any) -> set[str]:
        return set(fj.trainable(self.tree(model)))

    def values(self, model: Any) -> dict[str, bytes]:
        leaves = jax.tree_util.tree_leaves_with_path(fj.strip(self.tree(model)))
        named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
        return {path: np.asarray(leaf).tobytes() for path, leaf in named.items() if isinstance(leaf, jax.Array)}

    def output(self, model: Any) -> bytes:
        return np.asarray(self.call(model, batch())).tobytes()

    def input_gradient(self, model: Any) -> bytes:
        return np.asarray(jax.grad(lambda x: self.call(model, x).sum())(batch())).tobytes()

    def gradient(self, terms: Sequence[tuple[float, Any]], of: Any) -> Mapping[str, list[float]]:
        found = self._gradient(terms, self.tree(of))
        own = {path: g for path, g in found.items() if path.startswith("0.")}
        return {path.removeprefix("0."): g.ravel().tolist() for path, g in own.items()}

    def gradient_of_layer(self, terms: Sequence[tuple[float, Any]], layer: Any) -> list[Any]:
        trained = fj.trainable(sharing(tuple(self.tree(model) for _, model in terms)))
        found = self._gradient(terms)
        arrays = [leaf for leaf in jax.tree.leaves(layer) if isinstance(leaf, jax.Array)]
        paths = [[path for path, array in trained.items() if array is own] for own in arrays]
        return [found[own[0]].ravel().tolist() if own else None for own in paths]

    def train(self, model: Any, *, steps: int, momentum_from: int = 0) -> Any:
        optimizer = fj.optimizer(optax.adamw(0.1, weight_decay=0.1))
        # Created for everything, so that frozen parameters have momentum, too.
        everything = fj.thaw(self.tree(model)) if momentum_from else self.tree(model)
        state = optimizer.init(everything)
        for _ in range(momentum_from):
            ones = jax.tree.map(jnp.ones_like, fj.split(everything)[0])
            _, state = optimizer.update(ones, state, everything)
        for _ in range(steps):
            model, state = self._step(model, optimizer, state)
        return model

    def _step(self, model: Any, optimizer: Any, state: Any) -> tuple[Any, Any]:
        def loss(tree: Any) -> tuple[jax.Array, Any]:
            output, statistics = self.training_call(self.with_tree(model, tree), x)
            return jnp.square(output).sum(), statistics

        x = batch()[:, : self._width(model)]
        tree = self.tree(model)
        (_, statistics), gradient = fj.value_and_grad(loss, has_aux=True)(tree)
        updates, state = optimizer.update(gradient, state, tree)
        trained, rest = fj.split(tree)
        after = self.with_tree(model, fj.join(optax.apply_updates(trained, updates), rest))
        return self.with_new_statistics(after, statistics), state

    def write(self, layer: Any, factor: float, *models: Any) -> Sequence[Any]:
        own = {id(leaf) for leaf in jax.tree.leaves(layer)}
        trained, rest = fj.split(sharing((layer, *map(self.tree, models))))
        written = jax.tree.map(lambda leaf: factor * leaf if id(leaf) in own else leaf, trained)
        _, *after = fj.join(written, rest)
        return [self.with_tree(model, tree) for model, tree in zip(models, after, strict=True)]

    def guarded(self, model: Any, act: Callable[[], Any]) -> Any:
        with fj.guard(self.tree(model)) as watching:
            after = act()
            watching.verify(self.tree(after))
        return after

    def _width(self, model: Any) -> int:
        first = next(leaf for path, leaf in fj.trainable(fj.strip(self.tree(model))).items() if path.endswith("weight"))
        return int(first.shape[1])

    def _gradient(self, terms: Sequence[tuple[float, Any]], *others: Any) -> dict[str, Any]:
        """The gradient by path in the tuple of all models; an array in several models occurs once."""

        def loss(trees: Sequence[Any]) -> jax.Array:
            used = [(f, self.with_tree(m, t)) for (f, m), t in zip(terms, trees[len(others) :], strict=True)]
            return jnp.stack([factor * self.call(model, batch()).sum() for factor, model in used]).sum()

        return fj.trainable(fj.grad(loss)(sharing((*others, *(self.tree(model) for _, model in terms)))))


def sharing(trees: tuple[Any, ...]) -> Any:
    """The trees, with the arrays tied that several of them have."""
    arrays = [id(leaf) for leaf in jax.tree.leaves(trees) if isinstance(leaf, jax.Array)]
    return fj.tie(trees) if len(set(arrays)) < len(arrays) else trees
