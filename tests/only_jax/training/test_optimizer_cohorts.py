"""Freezing and thawing between steps: kept and new moments, the step of the run, and traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import frostline.jax as fj
from frostline.jax._training.optimizer import optimizer
from only_jax.bits import bits

NAMES = ("a", "b", "c")
RATE = 0.1


def net() -> dict[str, Any]:
    return {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[0.5, 3.0]]), "c": jnp.array([-1.0])}


def gradients(params: Any, step: Any) -> Any:
    """Gradients that change from step to step, and do not depend on the parameters."""
    shapes = {name: leaf.size for name, leaf in fj.strip(params).items()}
    full = {
        name: (2.0 + jnp.sin(1.0 * step + jnp.arange(1.0 * size))).reshape(fj.strip(params)[name].shape)
        for name, size in shapes.items()
    }
    return jax.tree.unflatten(jax.tree.structure(params), [full[name] for name in NAMES])


def walked(tx: Any, params: Any, state: Any, first: int, steps: int, **options: Any) -> tuple[Any, Any, Any]:
    """Several steps, and the updates of each; the options are those of the compiler."""

    def step(carry: Any, number: Any) -> Any:
        params, state = carry
        updates, state = tx.update(gradients(params, number), state, params)
        return (optax.apply_updates(params, updates), state), updates

    def all_steps(carry: Any) -> Any:
        # The first one may change the structure of the state, so it is before the loop.
        carry, start = step(carry, first)
        carry, updates = jax.lax.scan(step, carry, first + 1 + jnp.arange(steps - 1))
        return *carry, jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), start, updates)

    return jax.jit(all_steps, compiler_options=options)((params, state))


def alone(tx: Any, leaf: Any, first: int, steps: int, **options: Any) -> Any:
    """The updates of a new plain Optax optimizer on the parameter b alone."""

    def step(state: Any, number: Any) -> Any:
        updates, state = tx.update(gradients(net(), number)["b"], state, leaf)
        return state, updates

    def all_steps(state: Any) -> Any:
        return jax.lax.scan(step, state, first + jnp.arange(steps))[1]

    return jax.jit(all_steps, compiler_options=options)(tx.init(leaf))


def largest_ratio(updates: Any, fresh: Any) -> float:
    """The largest ratio of the updates to the new ones; where those are zero, the updates must be zero."""
    updates, fresh = np.abs(np.asarray(updates)), np.abs(np.asarray(fresh))
    assert not updates[fresh == 0].any()
    return float((updates[fresh > 0] / fresh[fresh > 0]).max())


ADAPTIVE: dict[str, Callable[[], Any]] = {
    "adam": lambda: optax.adam(RATE),
    "adamw": lambda: optax.adamw(RATE, weight_decay=0.0),
    "adafactor": lambda: optax.adafactor(RATE, multiply_by_parameter_scale=False, momentum=0.9),
    "momentum": lambda: optax.sgd(RATE, momentum=0.9),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=RATE),
    "only if finite": lambda: optax.apply_if_finite(optax.adam(RATE), 3),
    "accumulation": lambda: optax.MultiSteps(optax.adam(RATE), 2),
}

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""These options compile in a third of the time, and do not change the size of an update."""


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_thawed_leaf_moves_like_one_with_a_fresh_optimizer(name: str) -> None:
    """The first hundred updates after a thaw at step 1,000."""
    tx = optimizer(ADAPTIVE[name]())
    params = fj.freeze(net(), "b")
    params, state, _ = walked(tx, params, tx.init(params), 0, 1000, **QUICK)
    thawed = fj.thaw(params)
    _, _, updates = walked(tx, thawed, state, 1000, 100, **QUICK)
    fresh = alone(ADAPTIVE[name](), net()["b"], 1000, 100, **QUICK)
    assert largest_ratio(fj.strip(updates)["b"], fresh) <= 1.05


def test_with_the_count_of_the_others_a_thawed_leaf_moves_differently() -> None:
    """Negative control: new moments with the count of the others, set by hand."""
    tx = optax.adam(RATE)
    moments = tx.init(net()["b"])
    moments = (moments[0]._replace(count=jnp.array(1000)), *moments[1:])
    late = optax.GradientTransformation(lambda _: moments, tx.update)
    ratio = largest_ratio(alone(late, net()["b"], 1000, 100), alone(tx, net()["b"], 1000, 100))
    assert 4.5 < ratio < 6


def test_a_thaw_does_not_change_the_updates_of_the_others() -> None:
    tx = optimizer(optax.adamw(RATE, weight_decay=0.1))
    params = fj.freeze(net(), "b")
    params, state, _ = walked(tx, params, tx.init(params), 0, 10)
    still, calm, before = walked(tx, params, state, 10, 5)
    thawed, after, updates = walked(tx, fj.thaw(params), state, 10, 5)
    pairs = [(still, thawed), (before, updates), (calm.inner[0].mu, after.inner[0].mu)]
    pairs += [(calm.inner[0].nu, after.inner[0].nu)]
    for one, other in pairs:
        one, other = fj.strip(one), fj.strip(other)
        for name in ("a", "c"):
            assert np.asarray(one[name]).tobytes() == np.asarray(other[name]).tobytes()
    assert after.cohorts == (("a", "c"), ("b",))
    assert (int(after.inner[0].count), int(after.counts[0]["[0].count"])) == (15, 5)


def test_freezing_drops_the_state_and_keeps_the_moments_of_the_others() -> None:
    tx = optimizer(optax.adam(RATE))
    params, state, _ = walked(tx, net(), tx.init(net()), 0, 3)
    frozen = fj.freeze(params, "b")
    zeros = jax.tree.map(jnp.zeros_like, frozen)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) == 4 + 2 * 20
    updates, after = tx.update(zeros, state, frozen)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(after)) == 4 + 2 * 12
    # With gradients of zero a moment only decays.
    for name in ("a", "c"):
        assert fj.strip(after.inner[0].mu)[name].tolist() == (0.9 * state.inner[0].mu[name]).tolist()
    assert bits(optax.apply_updates(frozen, updates))["b"] == bits(params)["b"]


def test_schedules_stay_on_the_step_of_the_run() -> None:
    falling = optax.linear_schedule(1.0, 0.0, 8)
    for tx in (optimizer(optax.adam(falling)), optimizer(optax.inject_hyperparams(optax.adam)(falling))):
        params = fj.freeze(net(), "b")
        params, state, _ = walked(tx, params, tx.init(params), 0, 4)
        params = fj.thaw(params)
        _, _, updates = walked(tx, params, state, 4, 2)
        assert round(float(updates["b"][0, 0, 0]), 4) == -0.5
    # The negative control: a fresh optimizer begins with the whole rate.
    assert round(float(alone(optax.adam(falling), net()["b"], 4, 1)[0, 0, 0]), 4) == -1.0


def test_clipping_counts_all_trainable_parameters() -> None:
    tx = optimizer(optax.chain(optax.scale_by_adam(b1=0.0, b2=0.0, eps=0.0), optax.clip_by_global_norm(1.0)))
    before = optimizer(optax.chain(optax.clip_by_global_norm(1.0), optax.trace(0.0), optax.scale_by_adam(0.0, 0.999)))
    params = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    frozen = fj.freeze(params, "b")
    for each, expected in ((tx, {"a": 0.7071, "b": 0.7071}), (before, None)):
        _, state = each.update(frozen, each.init(frozen), frozen)
        thawed = fj.thaw(params)
        updates, state = each.update(thawed, state, thawed)
        assert state.cohorts == (("a",), ("b",))
        if expected:
            assert {name: round(float(leaf[0]), 4) for name, leaf in fj.strip(updates).items()} == expected
        else:
            # Gradients of 3 and 4 become 0.6 and 0.8: Adam squares the clipped gradients.
            assert round(float(state.inner[2].nu["b"][0]), 8) == 0.00064


def test_several_cohorts_start_and_end() -> None:
    tx = optimizer(optax.adam(RATE))
    update = jax.jit(tx.update)
    seen = []

    def step(params: Any, state: Any, number: int) -> Any:
        updates, state = update(gradients(params, number), state, params)
        seen.append((state.cohorts, [int(state.inner[0].count), *(int(c["[0].count"]) for c in state.counts)]))
        return optax.apply_updates(params, updates), state

    def follow(params: Any, frozen: tuple[str, ...]) -> Any:
        return fj.freeze(fj.thaw(params), *frozen) if frozen else fj.thaw(params)

    params = fj.freeze(net(), "b", "c")
    state = tx.init(params)
    for number, frozen in enumerate([("b", "c"), ("c",), (), ("a",), ("a", "b", "c"), ("b", "c"), (), ()]):
        params, state = step(follow(params, frozen), state, number)
    assert seen == [
        ((("a",),), [1]),
        ((("a",), ("b",)), [2, 1]),
        ((("a",), ("b",), ("c",)), [3, 2, 1]),
        ((("b",), ("c",)), [3, 2]),
        # Nothing trains, but the steps of the run go on.
        ((), [4]),
        ((("a",),), [1]),
        ((("a",), ("b", "c")), [2, 1]),
        ((("a",), ("b", "c")), [3, 2]),
    ]


@pytest.mark.parametrize(("selectors", "expected"), [(["b"], -0.1), ([], -0.09423)], ids=["frozen between", "not"])
def test_a_leaf_that_was_frozen_and_thawed_has_a_new_cohort(selectors: list[str], expected: float) -> None:
    """The first update of Adam is the full rate; with moments of earlier steps and other gradients it is less."""
    tx = optimizer(optax.adam(RATE))
    params, state, _ = walked(tx, net(), tx.init(net()), 0, 3)
    between = fj.freeze(params, *selectors) if selectors else params
    _, state = tx.update(gradients(between, 3), state, between)
    thawed = fj.thaw(between)
    updates, state = tx.update(gradients(thawed, 4), state, thawed)
    assert state.cohorts == ((("a", "c"), ("b",)) if selectors else (("a", "b", "c"),))
    assert round(float(updates["b"][0, 0]), 5) == expected


def test_traces() -> None:
    """A change needs one trace and the steps after it another; an equal or earlier frozen set needs none."""
    tx = optimizer(optax.adam(RATE))
    traces = []

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        traces.append(state.cohorts)
        updates, state = tx.update(gradients(params, 0), state, params)
        return optax.apply_updates(params, updates), state

    params, counted = fj.freeze(net(), "b"), []
    state = tx.init(params)
    for frozen in ("b", None, "b", None, "b"):
        params = fj.freeze(params, frozen) if frozen else fj.thaw(params)
        for _ in range(3):
            params, state = step(params, state)
        counted.append(len(traces))
    # Frozen: 1. Thawed, from one cohort to two: 2. Frozen again, from two to one: 1, for one it was before.
    assert counted == [1, 3, 4, 4, 4]


def test_without_counts_there_is_one_cohort() -> None:
    tx = optimizer(optax.sgd(RATE, momentum=0.9))
    params = fj.freeze(net(), "b")
    _, state = tx.update(gradients(params, 0), tx.init(params), params)
    thawed = fj.thaw(params)
    _, state = tx.update(gradients(thawed, 1), state, thawed)
    assert (state.cohorts, state.counts) == ((("a", "b", "c"),), ())


def masked(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim == 1, params)


def labelled(params: Any) -> Any:
    return jax.tree.map(lambda leaf: "vector" if leaf.ndim == 1 else "b", params)


@pytest.mark.parametrize(
    "tx",
    [
        lambda: optax.chain(optax.masked(optax.adam(RATE), masked), optax.add_decayed_weights(0.1)),
        lambda: optax.partition({"vector": optax.adam(RATE), "b": optax.adam(RATE)}, labelled),
        lambda: optax.sm3(RATE),
    ],
    ids=["masked", "partitioned", "lists of moments"],
)
@pytest.mark.parametrize("shape", [lambda tree: tree, lambda tree: list(tree.values())], ids=["dict", "list"])
def test_moments_are_found_in_any_state(tx: Callable[[], Any], shape: Callable[[Any], Any]) -> None:
    """After a thaw the thawed leaf moves as if alone, and the others as if it did not exist."""
    ours, theirs = optimizer(tx()), tx()
    params = shape(net())
    first, second, third = sorted(fj.trainable(params))
    frozen = fj.freeze(params, second)
    trained, single = fj.split(frozen)[0], fj.split(fj.freeze(params, first, third))[0]
    state, theirs_state = ours.init(frozen), theirs.init(trained)
    for _ in range(2):
        _, state = ours.update(frozen, state, frozen)
        _, theirs_state = theirs.update(trained, theirs_state, trained)
    thawed = fj.thaw(frozen)
    updates, state = ours.update(thawed, state, thawed)
    others, _ = theirs.update(trained, theirs_state, trained)
    started, _ = theirs.update(single, theirs.init(single), single)
    assert bits(fj.strip(updates)) == bits(others) | bits(started)


def test_the_same_frozen_set_with_other_marks_is_not_a_change() -> None:
    tx = optimizer(optax.adam(RATE))
    frozen = fj.freeze({"use": {"w": jnp.ones(2)}, "head": jnp.ones(2)}, "use")
    _, state = tx.update(frozen, tx.init(frozen), frozen)
    pinned = {"use": fj.Frozen({"w": jnp.ones(2)}), "head": jnp.ones(2)}
    _, after = tx.update(pinned, state, pinned)
    assert (after.cohorts, int(after.inner[0].count)) == ((("head",),), 2)
    assert np.allclose(fj.strip(after.inner[0].mu)["head"], 0.19)
