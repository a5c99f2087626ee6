"""A tree that lost its marks on the way is not a thaw: what the state has frozen stays still, or an error says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import serialization, traverse_util
from flax.core import FrozenDict
from flax.core import freeze as frozen_dict
from flax.training.train_state import TrainState

import frostline.jax as fj
from frostline.errors import BindError, StructureError
from frostline.jax._training.optimizer import optimizer
from only_jax.bits import bits, moved


def net() -> dict[str, Any]:
    return {"body": {"w": jnp.ones(2)}, "target": {"w": jnp.ones(2) * 2}, "head": jnp.ones(2) * 3}


def loss(p: Any) -> jax.Array:
    return ((p["body"]["w"] * p["head"] - 0.9 * p["target"]["w"]) ** 2).sum()


def transformation() -> Any:
    return optimizer(optax.chain(optax.trace(0.9), optax.adamw(0.1, weight_decay=0.1)))


def step(tx: Any, params: Any, state: Any) -> tuple[Any, Any]:
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def _restored(params: Any) -> Any:
    return serialization.from_bytes(net(), serialization.to_bytes(params))


REBUILT: dict[str, Callable[[Any], Any]] = {
    "a display": lambda p: {**p},
    "dict": dict,
    "a comprehension": lambda p: {name: p[name] for name in p},
    "a copy of a stripped tree": lambda p: fj.strip(p).copy(),
    "another container": lambda p: frozen_dict(fj.strip(p)),
    "flat and back": lambda p: traverse_util.unflatten_dict(traverse_util.flatten_dict(fj.strip(p))),
    "from bytes into a plain tree": _restored,
    "tied again": lambda p: fj.tie({**p, "more": p["head"]}),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", REBUILT)
def test_a_rebuilt_tree_is_refused(name: str, compiled: bool) -> None:
    tx, params = transformation(), fj.freeze(net(), "target")
    params, state = step(tx, params, tx.init(params))
    rebuilt = REBUILT[name](params)
    acting = jax.jit(step, static_argnums=0) if compiled else step
    with pytest.raises(StructureError, match="1 frozen parameter lost the mark on the way"):
        acting(tx, rebuilt, state)
    with pytest.raises(StructureError, match="1 frozen parameter lost the mark on the way"):
        tx.follow(state, rebuilt)


SAID: dict[str, tuple[Callable[[Any], Any], str | None]] = {
    "frozen again in part": (lambda p: fj.freeze({**p}, "body"), "target.w"),
    "frozen twice": (lambda p: fj.freeze(fj.freeze({**p}, "body"), "body"), "target.w"),
    "a part is marked": (lambda p: {**p, "body": fj.freeze({**p["body"]}), "target": {**p["target"]}}, "target.w"),
    "thawed in part": (lambda p: fj.thaw({**p}, "body"), "target.w"),
    "thawed, and rebuilt": (lambda p: {**fj.thaw(p)}, "body.w"),
    "frozen again as it was": (lambda p: fj.freeze({**p}, "body", "target"), None),
    "thawed by name": (lambda p: fj.thaw(p, "target"), None),
    "frozen again, and thawed": (lambda p: fj.thaw(fj.freeze({**p}, "body"), "target"), None),
    "a part is thawed": (lambda p: {**p, "body": fj.freeze(p["body"]), "target": fj.thaw({**p["target"]})}, None),
    "followed": (lambda p: fj.follow({**p}, fj.plan(fj.strip(p), "body")), None),
    "a copy of a thawed one": (lambda p: fj.thaw(p, "target").copy(), None),
}


@pytest.mark.parametrize("name", SAID)
def test_only_a_thaw_of_its_name_thaws(name: str) -> None:
    """A verb that says something about one part says nothing about another one."""
    tx, params = transformation(), fj.freeze(net(), "body", "target")
    made, lost = SAID[name]
    params, state = step(tx, params, tx.init(params))
    if lost is None:
        assert tx.follow(state, made(params)).plan == fj.plan(made(params))
        return
    with pytest.raises(StructureError) as caught:
        tx.follow(state, made(params))
    assert lost in str(caught.value).splitlines()[1]


def test_the_record_of_a_thaw_is_no_structure() -> None:
    """Two ways to one frozen set can be mapped together, and need one trace."""
    one, other = fj.freeze(net(), "target"), fj.thaw(fj.freeze(net(), "target", "head"), "head")
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert hash(jax.tree.structure(one)) == hash(jax.tree.structure(other))
    assert moved(one, jax.tree.map(jnp.add, one, other)) == {"body.w", "head", "target.w"}


def test_the_fix_in_the_error_works() -> None:
    tx, params = transformation(), fj.freeze(net(), "target")
    params, state = step(tx, params, tx.init(params))
    again = fj.follow({**params}, state.plan)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    after, _ = step(tx, again, state)
    assert moved(params, after) == {"body.w", "head"}
    after, _ = step(tx, fj.thaw({**params}), state)
    assert moved(params, after) == {"body.w", "head", "target.w"}


def test_every_thaw_is_followed() -> None:
    tx, params = transformation(), fj.freeze(net(), "target", "body")
    params, state = step(tx, params, tx.init(params))
    for thawed in (
        fj.thaw(params, "target"),
        fj.thaw(params),
        fj.follow({**params}, fj.plan(net(), "body")),
        fj.follow({**params}, fj.plan(net())),
    ):
        after, after_state = step(tx, thawed, state)
        assert moved(params, after) == fj.plan(thawed).trainable
        assert after_state.plan == fj.plan(thawed)


def test_a_part_that_lost_its_marks() -> None:
    """Marks may be kept in parts of a tree; the other parts never had any."""
    tx = transformation()
    params = {"body": {"w": jnp.ones(2)}, "target": fj.freeze({"w": jnp.ones(2) * 2}), "head": jnp.ones(2) * 3}
    params, state = step(tx, params, tx.init(params))
    assert moved(net(), params) == {"body.w", "head"}
    with pytest.raises(StructureError, match=r"target\.w"):
        step(tx, {**params, "target": {**params["target"]}}, state)
    after, _ = step(tx, {**params, "target": fj.thaw(params["target"])}, state)
    assert moved(params, after) == {"body.w", "head", "target.w"}


def test_a_frozen_use_that_was_replaced_by_its_layer() -> None:
    tx, params = transformation(), net() | {"target": fj.Frozen({"w": jnp.ones(2) * 2})}
    params, state = step(tx, params, tx.init(params))
    with pytest.raises(StructureError, match=r"target\.w"):
        step(tx, fj.strip(params), state)


def test_a_plan_beside_the_tree_cannot_be_lost() -> None:
    """The negative control of the states: whatever container it is, the plan counts."""
    tx = fj.optimizer(optax.adamw(0.1, weight_decay=0.1), frozen=fj.plan(net(), "target"))
    params, state = step(tx, net(), tx.init(net()))
    after, _ = step(tx, {**params}, state)
    assert moved(net(), after) == {"body.w", "head"}
    with pytest.raises(StructureError, match=r"target\.w"):
        step(fj.optimizer(optax.adamw(0.1, weight_decay=0.1)), params, state)


HANDED_ON: dict[str, Callable[[Any], Any]] = {
    "copy": lambda p: p.copy(),
    "copy.copy": copy.copy,
    "a union": lambda p: p | {"head": jnp.ones(2) * 4},
    "a union from the left": lambda p: {"head": jnp.ones(2) * 4} | p,
    "a union with new values of the frozen part": lambda p: p | {"target": {"w": jnp.ones(2) * 5}},
    "a union with another marked tree": lambda p: p | fj.freeze({"more": jnp.ones(2), "still": jnp.ones(2)}, "still"),
    "from bytes": lambda p: serialization.from_bytes(p, serialization.to_bytes(p)),
    "from the bytes of the plain tree": lambda p: serialization.from_bytes(p, serialization.to_bytes(fj.strip(p))),
}


@pytest.mark.parametrize("name", HANDED_ON)
def test_marks_are_handed_on(name: str) -> None:
    params = fj.freeze(net(), "target")
    after = HANDED_ON[name](params)
    assert fj.plan(after).frozen - {"still"} == {"target.w"}
    tx = transformation()
    stepped, _ = step(tx, after, tx.init(params))
    assert bits(stepped)["target.w"] == bits(after)["target.w"]
    assert moved(after, stepped) - {"more"} == {"body.w", "head"}


def test_a_copy_of_a_mapping_of_flax_with_other_items() -> None:
    params = fj.freeze(FrozenDict(net()), "target")
    after = params.copy({"head": jnp.zeros(2)})
    assert isinstance(fj.strip(after), FrozenDict)
    assert fj.plan(after) == fj.plan(params)
    assert after["head"].tolist() == [0.0, 0.0]


def test_ties_are_handed_on_where_the_array_is_still_one() -> None:
    table = jnp.ones(2)
    params = fj.freeze(fj.tie({"a": table, "b": table, "c": jnp.ones(2)}), "a")
    assert fj.plan(params.copy()) == fj.plan(params)
    after = params | {"b": jnp.zeros(2)}
    assert (after["b"].tolist(), fj.plan(after).frozen) == ([0.0, 0.0], {"a", "b"})


def test_what_is_no_mapping_has_no_union() -> None:
    params = fj.freeze([jnp.ones(2), jnp.ones(2)], "[0]")
    with pytest.raises(TypeError, match="unsupported operand"):
        params | {"head": jnp.ones(2)}
    assert fj.plan(params.copy()) == fj.plan(params)


def train_state(params: Any, tx: Any) -> Any:
    return TrainState.create(apply_fn=loss, params=params, tx=tx)


@pytest.mark.parametrize("moments", ["release", "keep"])
def test_a_train_state_goes_through_the_bytes_of_flax(moments: Any) -> None:
    tx = optimizer(optax.adamw(0.1, weight_decay=0.1), moments=moments)
    state = train_state(fj.freeze(net(), "target"), tx)
    state = state.apply_gradients(grads=jax.grad(loss)(state.params))
    state = state.replace(params=fj.freeze(state.params, "body"))
    state = state.apply_gradients(grads=jax.grad(loss)(state.params))
    restored = serialization.from_bytes(jax.tree.map(jnp.zeros_like, state), serialization.to_bytes(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restored)] == [
        np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)
    ]


def test_a_state_of_another_frozen_set_is_no_state_for_flax() -> None:
    tx = transformation()
    saved = serialization.to_bytes(train_state(fj.freeze(net(), "target"), tx))
    with pytest.raises(BindError) as caught:
        serialization.from_bytes(train_state(fj.freeze(net(), "body"), tx), saved)
    assert str(caught.value).split("\n") == [
        "flax.serialization.from_state_dict(state, saved) got the state of another set of trainable parameters, and "
        "Flax restores by place.",
        "  saved: body.w, head",
        "  here:  head, target.w",
        "Save and load by name: state = tx.load(saved, params), with saved = tx.save(state, params).",
    ]


def test_a_train_state_with_restored_parameters() -> None:
    tx = transformation()
    state = train_state(fj.freeze(net(), "target"), tx)
    with pytest.raises(StructureError, match=r"target\.w"):
        (lost := state.replace(params=net())).apply_gradients(grads=jax.grad(loss)(lost.params))
    again = state.replace(params=fj.follow(net(), state.opt_state.plan))
    after = again.apply_gradients(grads=jax.grad(loss)(again.params))
    assert moved(net(), after.params) == {"body.w", "head"}
