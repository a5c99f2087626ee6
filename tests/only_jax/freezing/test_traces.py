"""The number of traces of a step: one for each frozen set, and none for a return to one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import Array

import frostline.jax as fj
from only_jax.trees import Chain, chain, contents, descend, frozen_use, inputs, linear, loss

X = inputs()


class Traced:
    """A compiled function that counts how often Python runs it, which is when it is traced."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.count = 0
        self._fn = fn
        self._compiled = jax.jit(self._counted)

    def _counted(self, *args: Any) -> Any:
        self.count += 1
        return self._fn(*args)

    def __call__(self, *args: Any) -> Any:
        """The result of the compiled function."""
        return self._compiled(*args)


def step(tree: Any, x: Array) -> Any:
    return descend(tree, fj.grad(loss)(tree, x))


def test_one_trace_for_each_frozen_set_and_none_for_a_return() -> None:
    traced = Traced(step)
    tree = fj.freeze(chain(), "**", "!layers[2]")
    counts = []
    for change in (
        lambda tree: tree,
        lambda tree: fj.thaw(tree, "layers[1]"),
        fj.thaw,
        lambda tree: fj.freeze(tree, "layers[:2]"),
        lambda tree: fj.thaw(tree, "layers[1]"),
        lambda tree: fj.freeze(fj.strip(tree), "layers[0].weight", "layers[0].bias"),
    ):
        tree = change(tree)
        for _ in range(3):
            tree = traced(tree, X)
        counts.append(traced.count)
    assert counts == [1, 2, 3, 3, 3, 3]


def test_the_way_to_a_frozen_set_makes_no_difference() -> None:
    traced = Traced(step)
    plan = fj.plan(fj.freeze(chain(), "layers[0]", "layers[1]"))
    for tree in (
        fj.freeze(chain(), "layers[:2]"),
        fj.freeze(fj.freeze(chain(), "layers[1]"), "layers[0]"),
        fj.freeze(chain(), "**", "!layers[2].*"),
        fj.thaw(fj.freeze(chain()), "layers[-1]"),
        fj.follow(chain(), plan),
        fj.follow(fj.freeze(chain(), "layers[2]"), plan),
        jax.tree.map(lambda leaf: leaf + 1, fj.freeze(chain(), "layers[:2]")),
    ):
        traced(tree, X)
    assert traced.count == 1


def test_a_trace_for_models_built_with_other_uses_and_none_for_other_values() -> None:
    traced = Traced(step)
    for seed in (4, 5):
        traced(frozen_use(chain()), X)
        traced(frozen_use(Chain(tuple(map(linear, (seed, seed + 1, seed + 2))))), X)
    assert traced.count == 1
    traced(chain(), X)
    assert traced.count == 2


def test_evaluation_of_the_stripped_tree_is_traced_once() -> None:
    evaluation = Traced(loss)
    first = chain()
    trees = (first, fj.freeze(first), fj.freeze(first, "layers[1]"), frozen_use(first), fj.freeze(frozen_use(first)))
    values = [float(evaluation(fj.strip(tree), X)) for tree in trees]
    assert values == 5 * [float(loss(first, X))]
    assert evaluation.count == 1


def test_evaluation_of_the_tree_itself_is_traced_for_each_set() -> None:
    """Negative control: the counter counts, and `strip` avoids the traces."""
    evaluation = Traced(loss)
    for tree in (chain(), fj.freeze(chain()), fj.freeze(chain(), "layers[1]"), frozen_use(chain())):
        evaluation(tree, X)
    assert evaluation.count == 4


def test_evaluation_of_a_tied_tree_is_traced_once() -> None:
    evaluation = Traced(loss)
    model = chain()
    tied = Chain((*model.layers, model.layers[0]))
    for tree in (tied, fj.freeze(tied, "layers[1]"), fj.join(*fj.split(tied))):
        evaluation(fj.strip(tree), X)
    assert evaluation.count == 1


def test_a_step_over_both_parts_with_an_optimizer() -> None:
    """The parts of one split, step after step; the rest is an argument, so that its values are not constants."""
    tx = optax.adamw(1e-2)

    def of_parts(trained: Any, rest: Any, state: Any, x: Array) -> tuple[Any, Any]:
        slopes = jax.grad(lambda trained: loss(fj.join(trained, rest), x))(trained)
        updates, state = tx.update(slopes, state, trained)
        return optax.apply_updates(trained, updates), state

    traced, tree = Traced(of_parts), chain()
    for selectors in (("layers[1]",), ("layers[:2]",), ("layers[1]",)):
        trained, rest = fj.split(fj.freeze(fj.strip(tree), *selectors))
        before, state = contents(rest), tx.init(trained)
        for _ in range(2):
            trained, state = traced(trained, rest, state, X)
        assert contents(rest) == before
        tree = fj.join(trained, rest)
    assert traced.count == 2
