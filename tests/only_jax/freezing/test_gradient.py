"""Gradients of the trainable part, in one tree and in two that share layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import frostline.jax as fj
from conformance.plain_net import BatchNorm1d, Dropout, Linear, Sequential
from only_jax.bits import moved, named

X = jnp.array([[1.0, 2.0], [3.0, -1.0]])


def layers() -> list[Linear]:
    return [Linear(jnp.array([[1.0, i], [-i, 2.0]]), jnp.array([0.5, i])) for i in (1.0, 2.0, 3.0)]


def total(model: Any, x: Any = X) -> jax.Array:
    return jnp.sum(jnp.tanh(model(x)))


class TestOneTree:
    def test_the_gradient_equals_that_of_the_hand_split_model(self) -> None:
        l1, l2, l3 = layers()
        by_hand = jax.grad(lambda free: total(Sequential(free[0], l2, free[1])))((l1, l3))
        found = named(fj.grad(total)(fj.freeze(Sequential(l1, l2, l3), "[1]")))
        expected = {f"{i}.{name}": g for i, one in ((0, by_hand[0]), (2, by_hand[1])) for name, g in vars(one).items()}
        assert found.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}
        assert [path for path, g in found.items() if g.tobytes() != expected[path].tobytes()] == []

    def test_value_aux_and_further_arguments(self) -> None:
        def loss(params: Any, x: Any, *, scale: float) -> Any:
            return scale * params["w"] * params["b"] * x, {"seen": params["w"]}

        params = fj.freeze({"w": jnp.array(2.0), "b": jnp.array(3.0)}, "w")
        (value, aux), gradient = fj.value_and_grad(loss, has_aux=True)(params, 5.0, scale=0.5)
        assert (float(value), float(aux["seen"]), float(gradient["b"]), gradient["w"]) == (15.0, 2.0, 5.0, None)
        gradient, aux = fj.grad(loss, has_aux=True)(params, 5.0, scale=0.5)
        assert float(gradient["b"]) == 5.0

    def test_the_loss_sees_the_type_of_the_tree(self) -> None:
        types = []
        fj.grad(lambda params: types.append(type(params)) or params["b"])(
            fj.freeze({"w": jnp.ones(()), "b": 1.0 * X[0, 0]}, "w")
        )
        assert types == [dict]

    def test_plain_jax_gives_zeros_through_marks_and_uses(self) -> None:
        l1, l2, l3 = layers()
        gradient = jax.grad(total)(fj.freeze(Sequential(l1, fj.Frozen(l2), l3), "[0]"))
        zero = {path for path, g in named(gradient).items() if not np.any(g)}
        assert zero == {"0.weight", "0.bias", "1.weight", "1.bias"}

    def test_the_input_has_the_gradient_of_the_trainable_layer(self) -> None:
        layer = layers()[0]
        for frozen in (fj.Frozen(layer), fj.freeze(layer)):
            assert jax.grad(total, 1)(frozen, X).tobytes() == jax.grad(total, 1)(layer, X).tobytes()

    def test_an_outer_gradient_does_not_reach_parameters_frozen_inside(self) -> None:
        def outer(params: dict[str, jax.Array]) -> jax.Array:
            inner = fj.grad(lambda p: (p["w"] ** 2 * p["b"] ** 2).sum())(fj.freeze(params, "w"))
            return inner["b"].sum()

        gradient = jax.grad(outer)({"w": jnp.array(2.0), "b": jnp.array(3.0)})
        assert (float(gradient["w"]), float(gradient["b"])) == (0.0, 8.0)

    def test_numpy_arrays_and_callables_are_allowed(self) -> None:
        tree = {"w": np.array([2.0], np.float32), "act": jnp.tanh, "n": 2, "hole": None}
        gradient = fj.grad(lambda t: (t["w"] * t["n"]).sum())(tree)
        assert (gradient["w"].tolist(), gradient["act"], gradient["n"], gradient["hole"]) == ([2.0], None, None, None)

    def test_the_gradient_function_has_the_name_of_the_loss(self) -> None:
        assert fj.value_and_grad(total).__name__ == "total"


class TestEvaluation:
    def model(self) -> Sequential:
        trunk = Sequential(layers()[0], BatchNorm1d(*(jnp.array([v, v]) for v in (1.0, 0.0, 0.5, 2.0))), Dropout())
        return Sequential(trunk, layers()[1])

    def test_a_held_module_is_in_evaluation_mode(self) -> None:
        model = self.model()
        frozen = fj.freeze(model, "[0]")
        seen = fj.grad(lambda m: total(m), has_aux=False)(frozen)
        assert seen is not None
        assert [frozen.layers[0].layers[i].inference for i in (1, 2)] == [True, True]
        assert [fj.strip(frozen).layers[0].layers[i].inference for i in (1, 2)] == [False, False]
        assert (frozen(X) == frozen(X)).all()

    def test_a_partly_frozen_module_is_not_in_evaluation_mode(self) -> None:
        frozen = fj.freeze(self.model(), "0.0.weight")
        assert [frozen.layers[0].layers[i].inference for i in (1, 2)] == [False, False]

    def test_a_frozen_use_is_in_evaluation_mode(self) -> None:
        use = fj.Frozen(self.model().layers[0])
        assert [use.layers[i].inference for i in (1, 2)] == [True, True]

    def test_a_layer_without_parameters_is_held_with_the_module_around_it(self) -> None:
        model = Sequential(layers()[0], Dropout())
        assert fj.freeze(model, "[0]").layers[1].inference is True
        assert fj.freeze(Sequential(*model.layers, layers()[1]), "[0]").layers[1].inference is False


class TestTwoTreesThatShare:
    """The seed's models, as two existing objects. They share layers only where it is said: ``fj.tie(pair)``."""

    def pair(self) -> tuple[Sequential, Sequential]:
        l1, l2, l3 = layers()
        return Sequential(l1, l2, l3), Sequential(l1, fj.Frozen(l2), l3)

    @staticmethod
    def difference(pair: Any) -> jax.Array:
        return jnp.sum(pair[0](X) - pair[1](X))

    FREE = {"0.0.weight", "0.0.bias", "0.2.weight", "0.2.bias"}  # noqa: RUF012
    SHARED = {"0.1.weight", "0.1.bias"}  # noqa: RUF012

    def check(self, gradient: Any) -> None:
        found = fj.trainable(gradient)
        assert found.keys() == self.FREE | self.SHARED
        assert {path for path, g in found.items() if np.any(g)} == self.SHARED

    def test_two_models_without_changes(self) -> None:
        self.check(fj.grad(self.difference)(fj.tie(self.pair())))

    def test_split_before_jit(self) -> None:
        trained, rest = fj.split(fj.tie(self.pair()))
        self.check(jax.jit(jax.grad(lambda trained: self.difference(fj.join(trained, rest))))(trained))

    def test_tied_before_jit(self) -> None:
        self.check(jax.jit(fj.grad(self.difference))(fj.tie(self.pair())))

    def test_tied_by_name_in_jit(self) -> None:
        def of_pair(pair: Any) -> Any:
            return fj.grad(self.difference)(
                fj.tie(fj.tie(fj.tie(pair, "[0][0]", "[1][0]"), "[0][1]", "[1][1]"), "[0][2]", "[1][2]")
            )

        self.check(jax.jit(of_pair)(self.pair()))

    @pytest.mark.parametrize("around", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
    def test_built_inside_the_function(self, around: Callable[..., Any]) -> None:
        """Rows 6, 7 and 9 in the other reading: both models are made of one list of layers, which is differentiated."""

        def loss(shared: list[Linear]) -> jax.Array:
            l1, l2, l3 = shared
            return self.difference((Sequential(l1, l2, l3), Sequential(l1, fj.Frozen(l2), l3)))

        found = named(around(fj.grad(loss))(layers()))
        assert {path for path, g in found.items() if np.any(g)} == {"1.weight", "1.bias"}

    def test_over_the_second_model_alone(self) -> None:
        """Row 8: there is no entry for the frozen layer, whatever the first model does with it."""
        m0, m1 = self.pair()
        found = fj.trainable(fj.grad(lambda m1: self.difference((m0, m1)))(m1))
        assert found.keys() == {"0.weight", "0.bias", "2.weight", "2.bias"}

    @pytest.mark.parametrize("around", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
    def test_without_ties_each_place_is_a_parameter(self, around: Callable[..., Any]) -> None:
        """The other reading: two models that share nothing, as for ``jax.grad``."""
        found = named(around(fj.grad(self.difference))(self.pair()))
        assert {path for path, g in found.items() if np.any(g)} == self.FREE | self.SHARED | {
            name.replace("0.", "1.", 1) for name in self.FREE
        }

    def test_the_gradient_of_a_tied_pair_does_not_fit_a_pair_without_ties(self) -> None:
        pair = self.pair()
        gradient = fj.grad(self.difference)(fj.tie(pair))
        with pytest.raises(ValueError, match="Marked"):
            optax.apply_updates(pair, gradient)

    def test_a_frozen_use_sees_the_trained_layer(self) -> None:
        pair = fj.tie(self.pair())
        trained, rest = fj.split(pair)
        after = fj.join(jax.tree.map(lambda leaf: leaf + 1, trained), rest)
        everywhere = {f"{i}.{j}.{part}" for i in (0, 1) for j in (0, 1, 2) for part in ("weight", "bias")}
        assert moved(pair, after) == everywhere
        assert named(after)["1.1.weight"] is named(after)["0.1.weight"]


class TestParts:
    def test_each_part_has_holes_for_the_other(self) -> None:
        trained, rest = fj.split([jnp.ones(1), fj.Frozen({"w": jnp.zeros(1)}), 3, None])
        assert (trained[0].tolist(), trained[1]["w"], trained[2], trained[3]) == ([1.0], None, None, None)
        assert (rest[0], rest[1]["w"].tolist(), rest[2], rest[3]) == (None, [0.0], 3, None)

    def test_the_parts_join_to_the_tree(self) -> None:
        tree = fj.freeze(Sequential(*layers(), Dropout()), "[0]", "**.bias")
        again = fj.join(*fj.split(tree))
        assert jax.tree.structure(again) == jax.tree.structure(tree)
        assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True))

    def test_the_trainable_part_has_the_structure_of_the_gradient(self) -> None:
        tree = fj.freeze(Sequential(*layers()), "[0]")
        assert jax.tree.structure(fj.split(tree)[0]) == jax.tree.structure(fj.grad(total)(tree))
