"""Flax linen: what stays of a frozen module, at construction and in place, and the dict of parameters."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import serialization

import frostline.jax as fj
from frostline import NoMatchError
from frostline.errors import PlanMismatchError
from frostline.integrations.linen import Frozen, held
from integrations.test_linen import FREE_GRADIENT, Of, X, chain, entries, params, plain
from only_jax.bits import bits, moved


class Net(nn.Module):
    """What has a mode, and what has state."""

    train: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = True) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.5)(x, deterministic=not train)
        x = nn.MultiHeadDotProductAttention(1, dropout_rate=0.5, deterministic=False, name="attend")(x)
        return x if not train else x + jax.random.normal(self.make_rng("dropout"), x.shape)


class Model(nn.Module):
    of: Any = plain

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = True) -> jax.Array:
        x = self.of(Net(name="still"))(x, train=train)
        return nn.BatchNorm(name="free")(x, use_running_average=not train)


ROWS = jnp.array([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])
RNGS = {"dropout": jax.random.key(1)}
STILL_STATS = {"still.norm.mean", "still.norm.var"}
FREE_STATS = {"free.mean", "free.var"}


def after_training(apply: Any, variables: Any) -> set[str]:
    _, new = apply(variables, ROWS, train=True, mutable=["batch_stats"], rngs=RNGS)
    return moved(variables["batch_stats"], new["batch_stats"])


class TestStill:
    def variables(self) -> Any:
        return Model().init(jax.random.key(0), ROWS, train=False)

    def test_statistics_of_a_frozen_use_stay(self) -> None:
        assert after_training(Model(Frozen).apply, self.variables()) == FREE_STATS

    def test_without_it_they_move(self) -> None:
        """The negative control."""
        assert after_training(Model().apply, self.variables()) == FREE_STATS | STILL_STATS

    def test_they_stay_under_jit_and_grad(self) -> None:
        variables = self.variables()

        @jax.jit
        @partial(jax.grad, has_aux=True)
        def step(params: Any) -> Any:
            out, new = Model(Frozen).apply({**variables, "params": params}, ROWS, mutable=["batch_stats"], rngs=RNGS)
            return (out**2).sum(), new

        gradient, new = step(variables["params"])
        assert moved(variables["batch_stats"], new["batch_stats"]) == FREE_STATS
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["still"]))
        assert gradient["free"]["scale"].any()

    def test_a_frozen_use_computes_what_the_model_computes_in_evaluation_mode(self) -> None:
        variables = Net().init(jax.random.key(0), ROWS, train=False)
        expected = bits(Evaluated().apply(variables, ROWS))
        assert bits(Frozen(Net()).apply(variables, ROWS, train=True)) == expected
        assert bits(Frozen(Net()).apply(variables, ROWS)) == expected
        assert bits(Net().apply(variables, ROWS, mutable=["batch_stats"], rngs=RNGS)[0]) != expected

    def test_fields_that_say_training_are_overruled_for_the_call_alone(self) -> None:
        norm = nn.BatchNorm(use_running_average=False)
        variables = norm.init(jax.random.key(0), ROWS)
        expected = nn.BatchNorm(use_running_average=True).apply(variables, ROWS)
        model = Frozen(norm)
        assert bits(model.apply(variables, ROWS)) == bits(expected)
        assert norm.use_running_average is False
        assert bits(norm.apply(variables, ROWS, mutable=["batch_stats"])[0]) != bits(expected)

    def test_the_mode_need_not_be_said(self) -> None:
        assert Frozen(nn.Dropout(0.5)).apply({}, ROWS).tolist() == ROWS.tolist()
        assert Frozen(nn.Dropout(0.5, deterministic=False)).apply({}, ROWS).tolist() == ROWS.tolist()

    def test_an_array_that_is_called_train_is_no_mode(self) -> None:
        class Data(nn.Module):
            def __call__(self, train: jax.Array) -> jax.Array:
                return train + 1

        assert Frozen(Data()).apply({}, train=jnp.ones(2)).tolist() == [2.0, 2.0]

    def test_what_a_layer_writes_by_its_own_rules_is_thrown_away(self) -> None:
        class Counter(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                calls = self.variable("calls", "count", lambda: jnp.zeros(()))
                calls.value += 1
                return x * calls.value

        class Counters(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return Frozen(Counter(name="still"))(Counter(name="free")(x))

        variables = {"calls": {"still": {"count": jnp.array(5.0)}, "free": {"count": jnp.array(5.0)}}}
        out, new = Counters().apply(variables, jnp.ones(1), mutable=["calls"])
        assert out.tolist() == [36.0]
        assert {name: calls["count"].item() for name, calls in new["calls"].items()} == {"still": 5.0, "free": 6.0}

    def test_spectral_norm_stays(self) -> None:
        class Normed(nn.Module):
            of: Of

            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                return self.of(nn.SpectralNorm(nn.Dense(2)))(x, update_stats=True)

        variables = Normed(plain).init(jax.random.key(0), X)
        assert moved(variables, Normed(Frozen).apply(variables, X, mutable=["batch_stats"])[1] | variables) == set()
        new = Normed(plain).apply(variables, X, mutable=["batch_stats"])[1]
        assert len(moved(variables["batch_stats"], new["batch_stats"])) == 2


class Evaluated(nn.Module):
    """What `Net` computes in evaluation mode, written out."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        return nn.MultiHeadDotProductAttention(1, deterministic=True, name="attend")(x)


class TestInPlace:
    """Parameters are a dict, before and after."""

    def test_a_marked_dict_is_handed_to_apply(self) -> None:
        marked = fj.freeze(params(), "l2")
        model = chain(plain)
        assert model.apply({"params": marked}, X).tolist() == [[54.0]]
        gradient = jax.grad(lambda p: model.apply({"params": p}, X).sum())(marked)
        zero = {"l2.kernel": [[0.0, 0.0], [0.0, 0.0]], "l2.bias": [0.0, 0.0]}
        assert entries(gradient) == FREE_GRADIENT | zero

    def test_the_gradient_is_absent_where_it_is_frozen(self) -> None:
        value, gradient = fj.value_and_grad(lambda p: chain(plain).apply({"params": p}, X).sum())(
            fj.freeze(params(), "l2")
        )
        assert value.item() == 54.0
        assert fj.strip(gradient)["l2"] == {"kernel": None, "bias": None}
        assert entries(gradient) == FREE_GRADIENT

    def test_split_and_join(self) -> None:
        trained, rest = fj.split(fj.freeze(params(), "**", "!l3.bias"))
        assert entries(trained) == {"l3.bias": [3.0]}
        gradient = jax.grad(lambda t: chain(plain).apply({"params": fj.join(t, rest)}, X).sum())(trained)
        assert entries(gradient) == {"l3.bias": [1.0]}

    def test_a_checkpoint_of_the_stripped_tree_has_the_same_bytes(self) -> None:
        stripped = fj.strip(fj.freeze(params(), "l2"))
        assert type(stripped) is dict
        assert jax.tree.structure(stripped) == jax.tree.structure(params())
        assert serialization.to_bytes(stripped) == serialization.to_bytes(params())
        loaded = serialization.from_bytes(params(), serialization.to_bytes(stripped))
        assert bits(loaded) == bits(params())

    def test_a_name_that_is_none_is_an_error(self) -> None:
        with pytest.raises(NoMatchError, match=r"l2\.kernal"):
            fj.freeze(params(), "l2.kernal")


class TestHeld:
    def variables(self) -> Any:
        return Model().init(jax.random.key(0), ROWS, train=False)

    def plan(self, *selectors: str) -> Any:
        return fj.plan(fj.freeze(self.variables()["params"], *selectors))

    def test_statistics_of_modules_that_are_frozen_whole_stay(self) -> None:
        assert after_training(held(Model().apply, self.plan("still")), self.variables()) == FREE_STATS
        assert after_training(held(Model().apply, self.plan()), self.variables()) == set()
        assert after_training(held(Model().apply, self.plan("still.norm")), self.variables()) == FREE_STATS

    def test_without_it_they_move(self) -> None:
        """The negative control."""
        assert after_training(Model().apply, self.variables()) == FREE_STATS | STILL_STATS

    def test_those_of_modules_that_are_frozen_in_part_move(self) -> None:
        plan = self.plan("still.norm.scale", "free.bias")
        assert after_training(held(Model().apply, plan), self.variables()) == FREE_STATS | STILL_STATS

    def test_they_are_in_evaluation_mode(self) -> None:
        norm = nn.BatchNorm(use_running_average=False)
        variables = norm.init(jax.random.key(0), ROWS)
        apply = held(norm.apply, fj.plan(fj.freeze(variables["params"])))
        assert bits(apply(variables, ROWS)) == bits(nn.BatchNorm(use_running_average=True).apply(variables, ROWS))

    def test_what_comes_back_has_the_form_of_what_apply_returns(self) -> None:
        apply = held(Model().apply, self.plan("still"))
        assert apply(self.variables(), ROWS, train=False).shape == (3, 2)
        _, new = apply(self.variables(), ROWS, train=False, capture_intermediates=True)
        assert new["intermediates"].keys() == {"still", "free", "__call__"}

    def test_what_is_written_by_other_rules_is_put_back(self) -> None:
        class Shift(nn.Module):
            @nn.compact
            def __call__(self, x: jax.Array) -> jax.Array:
                shift = self.variable("stats", "shift", lambda: jnp.zeros(()))
                shift.value += 1
                return x * self.param("scale", nn.initializers.ones, ())

        variables = {"params": {"scale": jnp.ones(())}, "stats": {"shift": jnp.zeros(())}}
        plan = fj.plan(fj.freeze(variables["params"]))
        assert held(Shift().apply, plan)(variables, X, mutable=["stats"])[1]["stats"]["shift"].item() == 0.0
        assert Shift().apply(variables, X, mutable=["stats"])[1]["stats"]["shift"].item() == 1.0

    def test_under_value_and_grad_and_jit(self) -> None:
        variables = self.variables()

        @jax.jit
        def step(params: Any, stats: Any) -> Any:
            apply = held(Model().apply, fj.plan(params))

            def loss(params: Any) -> Any:
                out, new = apply({"params": params, "batch_stats": stats}, ROWS, mutable=["batch_stats"], rngs=RNGS)
                return (out**2).sum(), new["batch_stats"]

            (_, stats_), gradient = fj.value_and_grad(loss, has_aux=True)(params)
            return stats_, gradient

        stats, gradient = step(fj.freeze(variables["params"], "still"), variables["batch_stats"])
        assert moved(variables["batch_stats"], stats) == FREE_STATS
        assert entries(gradient).keys() == {"free.scale", "free.bias"}

    def test_a_plan_of_something_else_is_an_error(self) -> None:
        variables = self.variables()
        apply = held(Model().apply, fj.plan(fj.freeze({"params": {"free": variables["params"]["free"]}})))
        with pytest.raises(PlanMismatchError, match="2 missing, 12 unknown"):
            apply(variables, ROWS)
