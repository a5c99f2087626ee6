"""Plain pytrees with a plan beside them on the bench: no tree has a mark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

import frostline.jax as fj
from conformance.bench_jax import JaxBench
from conformance.plain_net import Linear, Sequential
from conformance.pytree_bench import batch, sharing
from frostline import Plan


@dataclass
class Model:
    """An unmarked tree, and what is frozen in it."""

    tree: Any
    plan: Plan


class PlanBench(JaxBench):
    name = "plan"

    def chain(self, *layers: Any) -> Any:
        return _unfrozen(Sequential(*map(self.tree, layers)))

    def with_statistics(self) -> Any:
        return _unfrozen(super().with_statistics())

    def tied(self) -> Any:
        first, second = (self.linear(3, 3, salt) for salt in range(2))
        return _unfrozen(fj.tie(Sequential(first, Linear(first.weight, second.bias))))

    def tree(self, model: Any) -> Any:
        return model.tree if type(model) is Model else model

    def with_tree(self, model: Any, tree: Any) -> Any:
        return replace(model, tree=tree)

    def freeze(self, model: Any, *selectors: Any, **options: Any) -> Any:
        return replace(model, plan=model.plan.freeze(self._chosen(model, selectors, options)))

    def thaw(self, model: Any, *selectors: Any, **options: Any) -> Any:
        chosen = self._chosen(model, selectors, options) - fj.plan(model.tree).frozen
        return replace(model, plan=model.plan.thaw(chosen))

    def plan(self, model: Any) -> Any:
        return model.plan

    def follow(self, model: Any, plan: Any) -> Any:
        fj.split(model.tree, frozen=plan)
        return replace(model, plan=plan)

    def trainable(self, model: Any) -> set[str]:
        return set(fj.trainable(model.tree, frozen=model.plan))

    def call(self, model: Any, x: jax.Array) -> jax.Array:
        return fj.follow(model.tree, model.plan)(x)

    def with_new_statistics(self, model: Any, statistics: Any) -> Any:
        return self.with_tree(model, super().with_new_statistics(model.tree, statistics))

    def gradient_of_layer(self, terms: Sequence[tuple[float, Any]], layer: Any) -> list[Any]:
        trees, plan = _together([model for _, model in terms])
        trained = fj.trainable(trees, frozen=plan)
        found = self._gradient(terms)
        arrays = [leaf for leaf in jax.tree.leaves(layer) if isinstance(leaf, jax.Array)]
        paths = [[path for path, array in trained.items() if array is own] for own in arrays]
        return [found[own[0]].ravel().tolist() if own else None for own in paths]

    def gradient(self, terms: Sequence[tuple[float, Any]], of: Any) -> Mapping[str, list[float]]:
        own = {path: g for path, g in self._gradient(terms, of).items() if path.startswith("0.")}
        return {path.removeprefix("0."): g.ravel().tolist() for path, g in own.items()}

    def train(self, model: Any, *, steps: int, momentum_from: int = 0) -> Any:
        transformation = optax.adamw(0.1, weight_decay=0.1)
        # Made for everything, so that what is frozen now has momentum, too.
        optimizer = fj.optimizer(transformation, frozen=fj.plan(model.tree) if momentum_from else model.plan)
        state = optimizer.init(model.tree)
        for _ in range(momentum_from):
            ones = jax.tree.map(jnp.ones_like, fj.split(model.tree)[0])
            _, state = optimizer.update(ones, state, model.tree)
        optimizer = fj.optimizer(transformation, frozen=model.plan)
        for _ in range(steps):
            model, state = self._step(model, optimizer, state)
        return model

    def guarded(self, model: Any, act: Callable[[], Any]) -> Any:
        with fj.guard(model.tree, model.plan) as watching:
            after = act()
            watching.verify(after.tree)
        return after

    def _step(self, model: Any, optimizer: Any, state: Any) -> tuple[Any, Any]:
        def loss(tree: Any) -> tuple[jax.Array, Any]:
            output, statistics = self.training_call(tree, x)
            return jnp.square(output).sum(), statistics

        x = batch()[:, : self._width(model)]
        (_, statistics), gradient = fj.value_and_grad(loss, frozen=model.plan, has_aux=True)(model.tree)
        assert jax.tree.structure(gradient) == jax.tree.structure(fj.split(model.tree, frozen=model.plan)[0])
        updates, state = optimizer.update(gradient, state, model.tree)
        trained, rest = fj.split(model.tree, frozen=model.plan)
        after = self.with_tree(model, fj.join(optax.apply_updates(trained, updates), rest))
        assert jax.tree.structure(after.tree) == jax.tree.structure(model.tree)
        return self.with_new_statistics(after, statistics), state

    def _gradient(self, terms: Sequence[tuple[float, Any]], *others: Any) -> dict[str, Any]:
        def loss(trees: Sequence[Any]) -> jax.Array:
            used = zip(terms, trees[len(others) :], strict=True)
            return jnp.stack([factor * tree(batch()).sum() for (factor, _), tree in used]).sum()

        trees, plan = _together([*others, *(model for _, model in terms)])
        return fj.trainable(fj.grad(loss, frozen=plan)(trees))

    def _chosen(self, model: Any, selectors: Any, options: Any) -> frozenset[str]:
        return fj.plan(model.tree, *(selectors or ["**"]), **options).frozen


def _unfrozen(tree: Any) -> Model:
    return Model(tree, fj.plan(tree))


def _together(models: Sequence[Any]) -> tuple[Any, Plan]:
    """The trees in one, with the arrays tied that several of them have, and the plan of all."""
    trees = sharing(tuple(model.tree for model in models))
    frozen = {f"{place}.{path}" for place, model in enumerate(models) for path in model.plan.frozen}
    together = fj.plan(trees)
    return trees, together.freeze(together.paths & frozen)


bench = PlanBench()
