"""Rules: factors of the learning rate by selector, also for parameters that thaw later."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import frostline.jax as fj
from frostline import FrostlineError, NoMatchError, Rule, glob, layerwise, of_type
from frostline.errors import BindError
from frostline.jax._training.optimizer import optimizer
from only_jax.bits import bits


def net() -> dict[str, Any]:
    return {
        "encoder": [{"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}],
        "head": {"w": jnp.ones(2)},
    }


def moved_by(tx: Any, params: Any, state: Any = None, gradient: float = 1.0) -> tuple[dict[str, float], Any]:
    """The update of each trainable parameter whose elements all have one."""
    updates, state = tx.update(
        jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params), state or tx.init(params), params
    )
    return {name: round(float(array.ravel()[0]), 4) for name, array in fj.trainable(updates).items()}, state


class TestRates:
    def test_the_later_rule_decides(self) -> None:
        rules = [Rule("encoder", lr_scale=0.5), Rule("**.b", lr_scale=0.25), Rule(glob("encoder.0.b"), lr_scale=2.0)]
        updates, _ = moved_by(optimizer(optax.sgd(1.0), rules=rules), net())
        assert updates == {
            "encoder.0.b": -2.0,
            "encoder.0.w": -0.5,
            "encoder.1.b": -0.25,
            "encoder.1.w": -0.5,
            "head.w": -1.0,
        }

    def test_layer_wise_decay(self) -> None:
        rules = layerwise(["encoder[0]", "encoder[1]", "head"], decay=0.5)
        updates, _ = moved_by(optimizer(optax.sgd(1.0), rules=rules), net())
        assert updates == {
            "encoder.0.b": -0.25,
            "encoder.0.w": -0.25,
            "encoder.1.b": -0.5,
            "encoder.1.w": -0.5,
            "head.w": -1.0,
        }

    @pytest.mark.parametrize("moments", ["release", "keep"])
    def test_a_parameter_that_thaws_later_has_its_rate(self, moments: Any) -> None:
        """The rule also holds in a separate cohort."""
        tx = optimizer(optax.adam(1.0), rules=[Rule("encoder[0]", lr_scale=0.5)], moments=moments)
        frozen = fj.freeze(net(), "encoder")
        updates, state = moved_by(tx, frozen)
        assert updates == {"head.w": -1.0}
        updates, state = moved_by(tx, fj.thaw(frozen, "encoder[0].w"), state)
        assert updates == {"encoder.0.w": -0.5, "head.w": -1.0}
        updates, state = moved_by(tx, fj.thaw(frozen), state)
        assert (state.cohorts[2], updates["encoder.0.b"], updates["encoder.1.b"]) == (
            ("encoder.0.b", "encoder.1.b", "encoder.1.w"),
            -0.5,
            -1.0,
        )

    def test_without_a_rule_it_has_the_full_rate(self) -> None:
        """The negative control."""
        updates, _ = moved_by(optimizer(optax.adam(1.0)), net())
        assert set(updates.values()) == {-1.0}

    def test_clipping_and_schedules_inside_are_those_of_the_run(self) -> None:
        tx = optax.chain(
            optax.clip_by_global_norm(1.0), optax.scale_by_learning_rate(optax.linear_schedule(1.0, 0.0, 2))
        )
        ours = optimizer(tx, rules=[Rule("a", lr_scale=0.5)])
        params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
        grads, state = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}, ours.init(params)
        seen = []
        for _ in range(2):
            updates, state = ours.update(grads, state, params)
            seen.append({name: round(float(array[0]), 4) for name, array in updates.items()})
        # A gradient of norm 5 is clipped to (0.6, 0.8) for any rates.
        assert seen == [{"a": -0.3, "b": -0.8}, {"a": -0.15, "b": -0.4}]

    def test_parameters_without_a_rule_are_bitwise_as_without_rules(self) -> None:
        plain, ruled = optimizer(optax.adamw(0.1)), optimizer(optax.adamw(0.1), rules=[Rule("encoder", lr_scale=0.0)])
        grads = jax.tree.map(jnp.sin, net())
        one, _ = plain.update(grads, plain.init(net()), net())
        other, state = ruled.update(grads, ruled.init(net()), net())
        assert bits(other)["head.w"] == bits(one)["head.w"]
        assert bits(optax.apply_updates(net(), other))["encoder.0.w"] == bits(net())["encoder.0.w"]
        # A rate of zero does not freeze: the state is kept and moves.
        assert float(state.inner[0].mu["encoder"][0]["w"][0, 0]) != 0.0

    def test_rules_keep_half_precision(self) -> None:
        tx = optimizer(optax.sgd(1.0), rules=[Rule("**", lr_scale=0.1)])
        params = {"w": jnp.ones(2, jnp.bfloat16), "z": jnp.ones(2, jnp.complex64)}
        updates, _ = tx.update(params, tx.init(params), params)
        assert {name: str(array.dtype) for name, array in updates.items()} == {"w": "bfloat16", "z": "complex64"}

    def test_a_rule_without_options_has_no_effect(self) -> None:
        updates, _ = moved_by(optimizer(optax.sgd(1.0), rules=[Rule("head")]), net())
        assert set(updates.values()) == {-1.0}

    def test_holes_of_frozen_leaves_stay_holes(self) -> None:
        tx = optimizer(optax.sgd(1.0), rules=[Rule("encoder", lr_scale=0.5)])
        params = fj.freeze(net(), "head")
        grads = fj.grad(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(p)))(params)
        updates, _ = tx.update(grads, tx.init(params), params)
        assert jax.tree.structure(updates) == jax.tree.structure(grads)
        assert {float(leaf.ravel()[0]) for leaf in jax.tree.leaves(updates)} == {-0.5}


class TestNames:
    def test_a_tied_array_has_one_rate_under_any_name(self) -> None:
        table = jnp.ones((2, 2))
        params = fj.tie({"embed": table, "out": table})
        for name in ("embed", "out"):
            updates, _ = moved_by(optimizer(optax.sgd(1.0), rules=[Rule(name, lr_scale=0.5)]), params)
            assert updates == {"embed": -0.5}

    def test_an_array_at_two_places_without_a_tie_has_two_rates(self) -> None:
        table = jnp.ones((2, 2))
        params = {"embed": table, "out": table}
        tx = optimizer(optax.sgd(1.0), rules=[Rule("out", lr_scale=0.5)])
        for update in (tx.update, jax.jit(tx.update)):
            updates, _ = update(params, tx.init(params), params)
            assert {name: float(array[0, 0]) for name, array in updates.items()} == {"embed": -1.0, "out": -0.5}

    def test_frozen_uses_and_leaves_that_are_not_parameters(self) -> None:
        params = [fj.Frozen({"w": jnp.ones(2)}), {"w": jnp.ones(2), "steps": jnp.arange(2), "size": 3}]
        tx = optimizer(optax.sgd(1.0), rules=[Rule("[0]", lr_scale=0.5), Rule("[1].w", lr_scale=0.25)])
        grads = [fj.Frozen({"w": None}), {"w": jnp.ones(2), "steps": None, "size": None}]
        updates, _ = tx.update(grads, tx.init(params), params)
        assert updates[1]["w"].tolist() == [-0.25, -0.25]

    def test_a_rule_for_a_class(self) -> None:
        tx = optimizer(optax.sgd(1.0), rules=[Rule(of_type(Part), lr_scale=0.5)])
        updates, _ = moved_by(tx, {"part": Part(jnp.ones(2)), "w": jnp.ones(2)})
        assert updates == {"part.w": -0.5, "w": -1.0}

    def test_traces(self) -> None:
        """Rules are structure: they cause no trace, and are resolved once for each frozen set."""
        tx = optimizer(optax.adam(1.0), rules=layerwise(["encoder[0]", "encoder[1]", "head"], decay=0.5))
        traces = []

        @jax.jit
        def step(params: Any, state: Any) -> Any:
            traces.append(state.cohorts)
            updates, state = tx.update(params, state, params)
            return optax.apply_updates(params, updates), state

        frozen, counted = fj.freeze(net(), "encoder"), []
        params, state = frozen, tx.init(frozen)
        for thawed in (False, True, False, True):
            params = fj.thaw(params) if thawed else fj.freeze(params, "encoder", allow_empty=True)
            for _ in range(2):
                params, state = step(params, state)
            counted.append(len(traces))
        assert counted == [1, 3, 4, 4]


@jax.tree_util.register_pytree_with_keys_class
class Part:
    def __init__(self, w: Any) -> None:
        self.w = w

    def tree_flatten_with_keys(self) -> Any:
        return ((jax.tree_util.GetAttrKey("w"), self.w),), None

    @classmethod
    def tree_unflatten(cls, _: Any, children: Any) -> Part:
        return cls(*children)


def test_a_rule_without_a_match() -> None:
    tx = optimizer(optax.sgd(0.1), rules=[Rule("encodr", lr_scale=0.1)])
    with pytest.raises(NoMatchError) as caught:
        tx.init(net())
    assert str(caught.value).split("\n") == [
        "'encodr' matches none of the 5 parameters.",
        "Closest paths:",
        "  encoder",
        "  encoder.1",
        "  encoder.0",
        "Fix the pattern, or pass allow_empty=True if matching nothing is what you want.",
    ]
    # A name that is frozen is a name.
    optimizer(optax.sgd(0.1), rules=[Rule("encoder", lr_scale=0.1)]).init(fj.freeze(net(), "encoder"))
    state = optimizer(optax.sgd(0.1)).init(net())
    with pytest.raises(NoMatchError):
        tx.update(net(), state, net())


def test_an_option_inside_the_transformation() -> None:
    with pytest.raises(BindError) as caught:
        optimizer(optax.adamw(0.1), rules=[Rule("**.b", weight_decay=0.0, lr_scale=2.0, eps=1.0)])
    assert str(caught.value).split("\n") == [
        "Rule('**.b', weight_decay=0.0, lr_scale=2.0, eps=1.0) has 2 options that cannot be changed from outside an "
        "Optax transformation: eps, weight_decay. The only option is:",
        "  lr_scale",
        "Set it inside, by a mask or by labels: optax.add_decayed_weights(0.1, mask=lambda tree: jax.tree.map("
        "lambda leaf: leaf.ndim > 1, tree)), or optax.partition(transforms, labels).",
    ]
    assert isinstance(caught.value, FrostlineError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_fix_for_such_an_option_works() -> None:
    decay = optax.add_decayed_weights(0.1, mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree))
    tx = optimizer(optax.chain(decay, optax.scale(-1.0)), rules=[Rule("encoder", lr_scale=0.5)])
    updates, _ = moved_by(tx, fj.freeze(net(), "encoder[0]"), gradient=0.0)
    assert updates == {"encoder.1.b": -0.0, "encoder.1.w": -0.05, "head.w": -0.0}
