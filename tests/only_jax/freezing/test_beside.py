"""A plan beside an unmarked tree: the verbs do the same as with marks, and every tree keeps the plain structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import frostline.jax as fj
from conformance.plain_net import BatchNorm1d, Dropout, Linear, Sequential
from frostline import MovedError, NoMatchError, Plan
from frostline.errors import (
    NothingTrainableError,
    PinnedError,
    PlanMismatchError,
    SelectorError,
    StructureError,
    UnsupportedError,
)
from only_jax.bits import bits

X = jnp.array([[1.0, 2.0], [3.0, -1.0]])


def net() -> Sequential:
    norm = BatchNorm1d(jnp.ones(2), jnp.zeros(2), jnp.full(2, 0.5), jnp.full(2, 2.0))
    layers = [Linear(jnp.array([[1.0, 2.0], [3.0, 4.0]]) * n, jnp.ones(2) * n) for n in (1, 2)]
    return Sequential(Sequential(layers[0], norm, Dropout()), layers[1])


def params() -> dict[str, Any]:
    return {"body": {"w": jnp.eye(2)}, "head": {"w": jnp.ones(2), "b": jnp.zeros(2)}}


def loss(model: Any) -> Array:
    return (model(X) ** 2).sum()


class TestTheSameAsMarks:
    def test_the_gradient_in_the_structure_of_the_tree(self) -> None:
        model, plan = net(), fj.plan(net(), "[0]")
        value, gradient = fj.value_and_grad(loss, frozen=plan)(model)
        marked_value, marked = fj.value_and_grad(loss)(fj.freeze(model, "[0]"))
        assert value == marked_value  # The norm is in evaluation mode and dropout is off, here as there.
        assert bits(gradient) == bits(marked)
        assert jax.tree.structure(gradient) == jax.tree.structure(fj.split(model, frozen=plan)[0])
        assert isinstance(gradient, Sequential)

    def test_a_plan_is_an_argument_of_compiled_code(self) -> None:
        traces = []

        @jax.jit
        def differentiated(params: Any, plan: Plan) -> Any:
            traces.append(plan)
            return fj.grad(lambda p: sum(map(jnp.sum, jax.tree.leaves(p))), frozen=plan)(params)

        first, second = fj.plan(params(), "body"), fj.plan(params(), "head")
        for plan in (first, second, fj.plan(params(), "body")):
            assert fj.trainable(differentiated(params(), plan)).keys() == plan.trainable
        assert traces == [first, second]
        assert jax.tree.leaves(first) == []

    def test_reading_verbs(self) -> None:
        plan, marked = fj.plan(params(), "body"), fj.freeze(params(), "body")
        assert fj.trainable(params(), frozen=plan).keys() == {"head.w", "head.b"}
        assert fj.mask(params(), frozen=plan) == {"body": {"w": False}, "head": {"w": True, "b": True}}
        assert str(fj.report(params(), frozen=plan)) == str(fj.report(marked))

        def of_params(p: Any, x: Array) -> Array:
            return (x @ p["body"]["w"] * p["head"]["w"] + p["head"]["b"]).sum()

        assert fj.audit(of_params, params(), X, frozen=plan) == fj.audit(of_params, marked, X)
        assert fj.cost(of_params, params(), X, frozen=plan).now == fj.cost(of_params, marked, X).now

        def predicted(p: Any, x: Array) -> Array:
            return jnp.tanh(x @ p["body"]["w"]) * p["head"]["w"] + p["head"]["b"]

        line = fj.frostline(predicted, params(), X, frozen=plan)
        assert line.boundary == fj.frostline(predicted, marked, X).boundary
        assert np.array_equal(line.above(params(), *line.below(X)), predicted(params(), X))

    def test_a_delta(self, tmp_path: Any) -> None:
        plan = fj.plan(params(), "body")
        fj.save_delta(tmp_path / "beside", params(), frozen=plan)
        fj.save_delta(tmp_path / "marked", fj.freeze(params(), "body"))
        assert (tmp_path / "beside").read_bytes() == (tmp_path / "marked").read_bytes()
        delta = fj.load_delta(tmp_path / "beside", params())
        assert delta.plan == plan
        assert jax.tree.structure(fj.strip(delta.tree)) == jax.tree.structure(params())

    def test_a_delta_with_the_state_of_an_optimizer(self, tmp_path: Any) -> None:
        plan = fj.plan(params(), "body")
        tx = fj.optimizer(optax.adam(0.1), frozen=plan)
        _, state = tx.update(params(), tx.init(params()), params())
        fj.save_delta(tmp_path / "run", params(), frozen=plan, optimizer=tx, state=state)
        loaded = fj.load_delta(tmp_path / "run", params(), optimizer=tx).state
        assert jax.tree.structure(loaded) == jax.tree.structure(state)
        assert bits(loaded.inner[0].mu) == bits(state.inner[0].mu)

    def test_trees_made_for_the_plain_tree_fit(self) -> None:
        """An average, axes of ``vmap`` and a filter of Equinox."""
        plan, many = fj.plan(params(), "body"), jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), params())
        axes = {"body": {"w": None}, "head": {"w": 0, "b": 0}}

        def of_params(p: Any) -> Array:
            return (X @ p["body"]["w"] * p["head"]["w"] + p["head"]["b"]).sum()

        given = {**many, "body": params()["body"]}
        gradient = jax.vmap(fj.grad(of_params, frozen=plan), in_axes=(axes,))(given)
        assert gradient["head"]["w"].tolist() == [[4.0, 1.0], [4.0, 1.0]]
        assert gradient["body"]["w"] is None
        trained, rest = eqx.partition(params(), fj.mask(params(), frozen=plan))
        assert bits(trained) == bits(fj.split(params(), frozen=plan)[0])
        assert bits(rest) == bits(fj.split(params(), frozen=plan)[1])

    def test_frozen_uses_and_ties_stay(self) -> None:
        layer = {"w": jnp.ones(2)}
        tree = fj.tie([layer, fj.Frozen(layer), {"w": jnp.ones(2) * 3}])
        plan = fj.plan(tree, "[2]")
        assert (plan.frozen, plan.trainable) == ({"1.w", "2.w"}, {"0.w"})
        gradient = fj.grad(lambda t: (t[0]["w"] * t[1]["w"] * t[2]["w"]).sum(), frozen=plan)(tree)
        assert gradient[0]["w"].tolist() == [3.0, 3.0]
        assert gradient[2]["w"] is None

    def test_the_guard_sees_what_moves(self) -> None:
        plan = fj.plan(params(), "body")
        with fj.guard(params(), plan) as watching:
            watching.verify(params() | {"head": {"w": jnp.zeros(2), "b": jnp.zeros(2)}})
        assert watching.paths == {"body.w"}
        with pytest.raises(MovedError), fj.guard(params(), plan) as watching:
            watching.verify(params() | {"body": {"w": jnp.zeros((2, 2))}})


class TestSplitBySelectors:
    def test_what_is_selected_trains(self) -> None:
        trained, rest = fj.split(params(), "head", "!**.b")
        assert bits(trained).keys() == {"head.w"}
        assert bits(rest).keys() == {"body.w", "head.b"}
        assert bits(fj.join(trained, rest)) == bits(params())

    def test_an_outer_loop_differentiates_through_an_inner_one(self) -> None:
        """ANIL: the inner loop trains the head, the outer one everything. With marks the body would get no gradient."""

        def of_params(p: Any) -> Array:
            return ((jnp.tanh(X @ p["body"]["w"]) @ p["head"]["w"] - 1) ** 2).sum()

        def inner(trained: Any, rest: Any) -> Array:
            return of_params(fj.join(trained, rest))

        def ours(p: Any) -> Array:
            trained, rest = fj.split(p, "head")
            trained = jax.tree.map(lambda leaf, g: leaf - 0.25 * g, trained, jax.grad(inner)(trained, rest))
            return inner(trained, rest)

        def by_hand(p: Any) -> Array:
            slope = jax.grad(lambda head: of_params({**p, "head": head}))(p["head"])
            head = jax.tree.map(lambda leaf, g: leaf - 0.25 * g, p["head"], slope)
            return of_params({**p, "head": head})

        assert bits(jax.grad(ours)(params())) == bits(jax.grad(by_hand)(params()))

        def half_right(p: Any) -> Array:
            frozen = fj.freeze(p, "body")
            slope = fj.grad(of_params)(frozen)
            trained, rest = fj.split(frozen)
            return inner(jax.tree.map(lambda leaf, g: leaf - 0.25 * g, trained, slope), rest)

        # Marks stop the gradient to the body wherever it is read, so this is what they give: none.
        assert not jax.grad(half_right)(params())["body"]["w"].any()

    def test_a_hyperparameter_gets_the_gradient_of_a_fit(self) -> None:
        def fitted(rate: Array) -> Array:
            trained, rest = fj.split({"w": jnp.array(1.0), "scale": jnp.array(2.0)}, "w")
            for _ in range(2):
                slope = jax.grad(lambda trained: (fj.join(trained, rest)["w"] * 2.0) ** 2)(trained)
                trained = jax.tree.map(lambda leaf, g: leaf - rate * g, trained, slope)
            return trained["w"]

        # w' = w (1 - 8 rate) twice.
        assert float(jax.grad(fitted)(jnp.array(0.0625))) == pytest.approx(-8.0)

    def test_a_marked_tree_trains_what_is_selected_and_not_frozen(self) -> None:
        trained, _ = fj.split(fj.freeze(params(), "**.b"), "head")
        assert bits(trained).keys() == {"head.w"}


class TestRefused:
    def refused(self, error: type[Exception], call: Callable[[], Any]) -> list[str]:
        with pytest.raises(error) as caught:
            call()
        return str(caught.value).split("\n")

    def test_no_plan(self) -> None:
        assert self.refused(StructureError, lambda: fj.split(params(), frozen="body")) == [
            "frozen='body' takes a plan, but got a str.",
            'Make a plan: plan = fj.plan(tree, "encoder").',
        ]

    def test_the_plan_of_another_tree(self) -> None:
        assert self.refused(PlanMismatchError, lambda: fj.split({"a": jnp.ones(1)}, frozen=fj.plan(params())))[0] == (
            "The plan and what it is compared with have different paths: 3 missing, 1 unknown."
        )

    def test_a_plan_that_trains_a_frozen_use(self) -> None:
        plan = Plan(frozenset(), frozenset({"w"}))
        with pytest.raises(PinnedError):
            fj.split(fj.Frozen({"w": jnp.ones(1)}), frozen=plan)

    def test_a_plan_that_trains_what_a_mark_freezes(self) -> None:
        call = lambda: fj.split(fj.freeze(params(), "head"), frozen=fj.plan(params(), "body"))  # noqa: E731
        assert self.refused(StructureError, call) == [
            "frozen=plan trains 2 parameters that a mark in the tree freezes:",
            "  head.b",
            "  head.w",
            "Take the marks off the tree, tree = thaw(tree), or leave the plan out.",
        ]

    def test_selectors_and_a_plan(self) -> None:
        plan = fj.plan(params(), "body")
        assert self.refused(UnsupportedError, lambda: fj.split(params(), "head", frozen=plan)) == [
            "split(tree, 'head', frozen=plan) is given selectors, which say what trains, and a plan, which says what "
            "is frozen.",
            "Give one of them: split(tree, frozen=plan).",
        ]

    def test_nothing_but_frozen_parameters_selected(self) -> None:
        assert self.refused(NothingTrainableError, lambda: fj.split(fj.freeze(params(), "head"), "head"))[0].startswith(
            "split(tree, 'head')"
        )

    def test_a_plan_among_selectors(self) -> None:
        assert self.refused(SelectorError, lambda: fj.freeze(params(), fj.plan(params(), "body"))) == [
            "Plan(frozen=1, trainable=2) is a plan; a selector says which parameters are meant.",
            "Follow it, follow(tree, plan), or pass it beside the tree: split(tree, frozen=plan).",
        ]

    def test_a_typo(self) -> None:
        with pytest.raises(NoMatchError):
            fj.split(params(), "haed")
        with pytest.raises(NoMatchError):
            fj.plan(params(), "haed")

    def test_nothing_to_train(self) -> None:
        with pytest.raises(NothingTrainableError):
            fj.grad(lambda p: p["head"]["w"].sum(), frozen=fj.plan(params(), "**"))(params())
