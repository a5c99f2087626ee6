"""With any Optax transformation, frozen leaves keep their bytes and have no state, and the rest trains unaffected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import frostline.jax as fj
from frostline.jax._training.moments import state_bytes
from frostline.jax._training.optimizer import optimizer
from frostline.jax._training.updates import NoUpdate
from only_jax.bits import bits, moved

FROZEN = {"body.w", "body.b", "odd"}
TRAINABLE = {"head.w", "head.b"}
STEPS = 5


def net() -> dict[str, Any]:
    """A net with values that an addition changes: negative zeros, denormals, a NaN with a payload."""
    nan = np.array([0x7FC12345], np.uint32).view(np.float32)[0]
    return {
        "body": {"w": jnp.array([[1.0, -2.0], [3.0, -0.5]]), "b": jnp.array([-0.0, 1e-42])},
        "odd": np.array([nan, -0.0, 1e-45, -1e-40], np.float32),
        "head": {"w": jnp.array([[1.0, 2.0], [-1.0, 0.5]]), "b": jnp.array([0.25, -0.25])},
    }


def frozen_net() -> Any:
    return fj.freeze(net(), "body", "odd")


def gradients(params: Any, step: int) -> Any:
    """Gradients of any size for trainable leaves, and nonsense for frozen ones."""
    full = {
        "body": {"w": jnp.full((2, 2), np.nan), "b": jnp.array([1e30, -1e30])},
        "odd": jnp.array([1.0, np.inf, -1.0, 0.0]),
        "head": {"w": jnp.sin(jnp.arange(4.0) + step).reshape(2, 2), "b": jnp.cos(jnp.arange(2.0) * step)},
    }
    return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(full))


def decayed(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def labelled(params: Any) -> Any:
    return jax.tree.map(lambda leaf: "matrix" if leaf.ndim > 1 else "vector", params)


def rate(step: Any) -> Any:
    return optax.linear_schedule(0.1, 0.01, 10)(step)


# name: the transformation, the arrays in its state for 4 + 2 trainable numbers, and their bytes.
TABLE: dict[str, tuple[Callable[[], Any], int, int]] = {
    "sgd": (lambda: optax.sgd(0.1, momentum=0.9, nesterov=True), 2, 24),
    "adamw": (lambda: optax.adamw(0.1, weight_decay=0.1), 5, 52),
    "adamw, decay of matrices": (lambda: optax.adamw(0.1, weight_decay=0.1, mask=decayed), 5, 52),
    "lamb": (lambda: optax.lamb(0.1, weight_decay=0.1), 5, 52),
    "lion": (lambda: optax.lion(0.1, weight_decay=0.1), 3, 28),
    "adafactor": (lambda: optax.adafactor(0.1, weight_decay_rate=0.1, momentum=0.9), 10, 72),
    "clip, then decay": (
        lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1), optax.add_decayed_weights(-0.1)),
        5,
        52,
    ),
    "decay, then clip": (
        lambda: optax.chain(
            optax.add_decayed_weights(0.1), optax.adaptive_grad_clip(0.5), optax.trace(0.9), optax.scale(-0.1)
        ),
        2,
        24,
    ),
    "accumulation": (lambda: optax.MultiSteps(optax.adamw(0.1, weight_decay=0.1), 2), 9, 84),
    "only if finite": (lambda: optax.apply_if_finite(optax.adamw(0.1, weight_decay=0.1), 3), 8, 61),
    "injected": (lambda: optax.inject_hyperparams(optax.adamw)(learning_rate=rate, weight_decay=0.1), 13, 84),
    "scheduled": (lambda: optax.adamw(rate, weight_decay=0.1), 6, 56),
    "masked": (lambda: optax.chain(optax.masked(optax.add_decayed_weights(0.1), decayed), optax.sgd(0.1, 0.9)), 2, 24),
    "partitioned": (
        lambda: optax.partition({"matrix": optax.adamw(0.1), "vector": optax.sgd(0.1, 0.9)}, labelled),
        4,
        44,
    ),
    "one vector": (lambda: optax.flatten(optax.adamw(0.1)), 3, 52),
}
each = pytest.mark.parametrize("name", TABLE)


def made(name: str) -> Any:
    return TABLE[name][0]()


def arrays(tree: Any) -> list[tuple[str, bytes]]:
    return [(str(leaf.dtype), np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


def by_hand(tx: Any, trained: Any, grads: Callable[[Any, int], Any]) -> tuple[Any, Any]:
    """Plain Optax on the trainable part."""
    state, update = tx.init(trained), jax.jit(tx.update)
    for step in range(STEPS):
        updates, state = update(grads(trained, step), state, trained)
        trained = optax.apply_updates(trained, updates)
    return trained, state


def trained_gradients(trained: Any, step: int) -> Any:
    kept = iter(jax.tree.leaves(gradients(frozen_net(), step)["head"]))
    return jax.tree.map(lambda _: next(kept), trained)


@each
def test_frozen_leaves_do_not_move_and_the_rest_trains_as_if_alone(name: str) -> None:
    """An unmodified loop with all gradients, and optax.apply_updates on the whole tree."""
    params = frozen_net()
    tx = optimizer(made(name))
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(STEPS):
        updates, state = update(gradients(params, step), state, params)
        params = optax.apply_updates(params, updates)
    assert moved(net(), params) == TRAINABLE
    trained, alone = by_hand(made(name), fj.split(frozen_net())[0], trained_gradients)
    assert arrays(fj.split(params)[0]) == arrays(trained)
    assert arrays(state) == arrays(alone)
    assert (len(arrays(state)), sum(len(data) for _, data in arrays(state))) == TABLE[name][1:]


@pytest.mark.parametrize("name", ["sgd", "adamw", "clip, then decay", "accumulation"])
def test_plain_optax_moves_frozen_leaves(name: str) -> None:
    """Negative control: the same loop without ``optimizer``, with zero gradients for frozen leaves."""
    params, tx = fj.strip(frozen_net()), made(name)
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(STEPS):
        grads = gradients(params, step)
        updates, state = update(jax.tree.map(jnp.zeros_like, grads) | {"head": grads["head"]}, state, params)
        params = optax.apply_updates(params, updates)
    assert moved(net(), params) >= {"body.b", "odd"}
    assert len(arrays(state)) >= TABLE[name][1]


@pytest.mark.parametrize("name", ["adamw", "decay, then clip", "accumulation", "masked"])
def test_gradients_with_none_for_frozen_leaves(name: str) -> None:
    def loss(params: Any, x: Any) -> Any:
        return ((x @ params["body"]["w"] @ params["head"]["w"] + params["head"]["b"]) ** 2).sum()

    x = jnp.array([[1.0, 2.0]])
    tx = optimizer(made(name))
    ours = theirs = frozen_net()
    one = other = tx.init(ours)
    for _ in range(2):
        grads = fj.grad(loss)(ours, x)
        updates, one = tx.update(grads, one, ours)
        assert jax.tree.structure(updates) == jax.tree.structure(grads)
        trained, rest = fj.split(ours)
        ours = fj.join(optax.apply_updates(trained, updates), rest)
        updates, other = tx.update(jax.grad(loss)(theirs, x), other, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert bits(ours) == bits(theirs)
    assert arrays(one) == arrays(other)
    assert moved(net(), ours) == TRAINABLE


def test_updates_have_the_shape_of_gradients() -> None:
    params = frozen_net()
    tx = optimizer(optax.sgd(1.0))
    full = gradients(params, 0)
    updates, state = tx.update(full, tx.init(params), params)
    kinds = [type(leaf) for leaf in jax.tree.leaves(updates, is_leaf=lambda node: isinstance(node, NoUpdate))]
    assert [kind is NoUpdate for kind in kinds] == [True, True, False, False, True]
    assert repr(fj.strip(updates)["odd"]) == "NoUpdate()"
    assert jax.tree.leaves(state) == []


@pytest.mark.parametrize("under", [jax.jit, lambda apply: apply], ids=["jit", "eager"])
def test_an_update_of_a_frozen_leaf_keeps_every_byte(under: Callable[..., Any]) -> None:
    odd = {"ours": jnp.asarray(net()["odd"]), "numpy": net()["odd"], "half": jnp.array([-0.0, 6e-8], jnp.bfloat16)}
    assert moved(odd, under(optax.apply_updates)(odd, jax.tree.map(lambda _: NoUpdate(), odd))) == set()


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_an_update_of_zeros_changes_bytes(zero: float) -> None:
    """Negative control: adding either zero flushes denormals, and one of them also loses the sign of zero."""
    odd = {"zero": jnp.array([-0.0]), "denormal": jnp.array([1e-42])}
    zeros = jax.tree.map(lambda leaf: jnp.full_like(leaf, zero), odd)
    assert moved(odd, optax.apply_updates(odd, zeros)) == ({"zero", "denormal"} if str(zero) == "0.0" else {"denormal"})


def test_the_norm_inside_is_that_of_the_trainable_part() -> None:
    seen = []

    def look(updates: Any, state: Any, params: Any = None) -> Any:
        seen.append((float(optax.tree.norm(updates)), float(optax.tree.norm(params))))
        return updates, state

    tx = optimizer(optax.chain(optax.GradientTransformation(lambda _: (), look), optax.clip_by_global_norm(1.0)))
    params = fj.freeze({"a": jnp.array([3.0, 4.0]), "b": jnp.array([100.0])}, "b")
    updates, _ = tx.update(jax.tree.map(lambda leaf: leaf * 2, params), tx.init(params), params)
    assert seen == [(10.0, 5.0)]
    assert fj.strip(updates)["a"].tolist() == [0.6000000238418579, 0.800000011920929]


def test_further_arguments_are_passed_on() -> None:
    params = fj.freeze({"a": jnp.array([1.0]), "b": jnp.array([1.0])}, "b")
    grads = jax.tree.map(lambda leaf: leaf * 2, params)
    for tx in (optimizer(optax.polyak_sgd()), optimizer(optax.MultiSteps(optax.polyak_sgd(), 1))):
        updates, _ = tx.update(grads, tx.init(params), params, value=jnp.array(1.0))
        assert fj.strip(updates)["a"].tolist() == [-0.5]
    plain = optimizer(optax.sgd(1.0))
    assert fj.strip(plain.update(grads, plain.init(params), params, value=1.0)[0])["a"].tolist() == [-2.0]


def test_frozen_uses_and_leaves_that_are_not_parameters() -> None:
    layer = {"w": jnp.array([1.0, -0.0])}
    params = [layer, fj.Frozen({"w": jnp.array([-0.0])}), {"steps": jnp.arange(2), "act": None}]
    tx = optimizer(optax.adamw(0.1))
    state = tx.init(params)
    grads = [{"w": jnp.ones(2)}, fj.Frozen({"w": jnp.ones(1)}), {"steps": np.zeros(2, jax.dtypes.float0), "act": None}]
    updates, state = jax.jit(tx.update)(grads, state, params)
    assert moved(params, optax.apply_updates(params, updates)) == {"0.w"}
    assert state_bytes(state, params) == {"0.w": 16, "1.w": 0}


def test_a_noted_tie_is_trained_once() -> None:
    table = jnp.ones((2, 2))
    params = fj.tie({"embed": table, "head": table, "b": jnp.ones(2)})
    tx = optimizer(optax.adamw(0.1))
    state = tx.init(params)
    assert (state.cohorts, len(jax.tree.leaves(state))) == ((("b", "embed"),), 5)
    grads = fj.grad(lambda p, x: ((x @ p["embed"] @ p["head"] + p["b"]) ** 2).sum())(params, jnp.ones((1, 2)))
    updates, state = jax.jit(tx.update)(grads, state, params)
    after = optax.apply_updates(params, updates)
    assert moved(params, after) == {"embed", "head", "b"}
    assert bits(after)["embed"] == bits(after)["head"]
    assert state_bytes(state, params) == {"b": 16, "embed": 32}


def test_an_array_is_a_tree() -> None:
    tx = optimizer(optax.adam(0.1))
    params = jnp.ones(3)
    updates, state = tx.update(jnp.ones(3), tx.init(params), params)
    assert np.allclose(updates, -0.1)
    assert state.cohorts == (("",),)


def test_a_scan_and_an_ensemble() -> None:
    """The state keeps its structure, and mapped leaves stay mapped."""
    tx = optimizer(optax.adamw(0.1))

    def trained(params: Any) -> Any:
        def step(carry: Any, number: Any) -> Any:
            params, state = carry
            grads = jax.tree.map(lambda leaf: jnp.sin(leaf + number), params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(3.0))[0][0]

    ensemble = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), frozen_net())
    after = jax.jit(jax.vmap(trained))(ensemble)
    assert moved(ensemble, after) == TRAINABLE
    for member in range(2):
        one = jax.tree.map(lambda leaf, member=member: leaf[member], after)
        assert moved(net(), one) == TRAINABLE


def test_values_in_the_state_can_be_read_and_set() -> None:
    params = frozen_net()
    tx = optimizer(optax.inject_hyperparams(optax.sgd)(learning_rate=1.0))
    state = optax.tree_utils.tree_set(tx.init(params), learning_rate=jnp.array(0.5))
    updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert float(optax.tree_utils.tree_get(state, "learning_rate")) == 0.5
    assert fj.strip(updates)["head"]["b"].tolist() == [-0.5, -0.5]


def test_bytes_of_each_parameter() -> None:
    params = frozen_net()
    none = {"body.b": 0, "body.w": 0, "odd": 0}
    trained = fj.split(params)[0]
    assert state_bytes(optimizer(optax.adamw(0.1)).init(params), params) == {**none, "head.b": 16, "head.w": 32}
    assert state_bytes(optax.adamw(0.1).init(trained), params) == {**none, "head.b": 16, "head.w": 32}
    assert state_bytes(optax.MultiSteps(optax.adam(0.1), 2).init(trained), params)["head.w"] == 48
    assert state_bytes(optax.sgd(0.1).init(trained), params) == {**none, "head.b": 0, "head.w": 0}
    # What is kept for frozen leaves is seen, too.
    assert state_bytes(optax.adamw(0.1).init(fj.strip(params)), params) == {
        "body.b": 16,
        "body.w": 32,
        "head.b": 16,
        "head.w": 32,
        "odd": 32,
    }


def test_bytes_count_for_the_longest_name() -> None:
    params = {"w": jnp.ones(1), "a": {"w": jnp.ones(2)}, "mu": jnp.ones(4), "count": jnp.ones(8)}
    assert state_bytes(optax.adam(0.1).init(params), params) == {"a.w": 16, "count": 64, "mu": 32, "w": 8}
