"""The whole text of every error of ``optimizer(tx)``."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import frostline.jax as fj
from frostline import FrostlineError, UnsupportedError
from frostline.jax._training.optimizer import optimizer


def net() -> dict[str, Any]:
    return {"body": {"w": jnp.ones(2), "b": jnp.ones(2)}, "head": [jnp.ones(2)]}


def tied() -> dict[str, Any]:
    table = jnp.ones((2, 2))
    return {"embed": table, "head": table}


def _regrown() -> Any:
    tx = optimizer(optax.adam(0.1))
    before, after = ({"w": jnp.ones((rows, 3)), "b": jnp.ones(2)} for rows in (5, 7))
    return tx.update(after, tx.init(before), after)


def _rebuilt() -> Any:
    tx, params = optimizer(optax.adam(0.1)), fj.freeze(net(), "body")
    state, rebuilt = tx.init(params), {**params}
    return tx.update(rebuilt, state, rebuilt)


def _reloaded() -> Any:
    tx, params = optimizer(optax.adam(0.1)), fj.freeze(net(), "head")
    return tx.load(tx.save(tx.init(params), params), fj.strip(params))


def updated(grads: Any, params: Any) -> Any:
    tx = optimizer(optax.adam(0.1))
    return tx.update(grads, tx.init(params), params)


def without_params() -> Any:
    tx = optimizer(optax.sgd(0.1))
    return tx.update(net(), tx.init(net()))


UPDATE = "optimizer(tx).update(grads, state, params)"
DIFFERENT = f"{UPDATE} got gradients and parameters of different structures."
DIFFERENTIATE = "Differentiate the tree that is updated: value, grads = value_and_grad(loss)(params, batch)."

TEXTS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "a function in place of a transformation": (
        lambda: optimizer(optax.adamw),
        [
            "optimizer(adamw) got a function, but takes an Optax transformation.",
            "Call it first: optimizer(optax.adamw(1e-3)).",
        ],
    ),
    "a number in place of a transformation": (
        lambda: optimizer(0.1),
        [
            "optimizer(tx) got a float, but takes an Optax transformation.",
            "For example: optimizer(optax.adamw(1e-3)).",
        ],
    ),
    "nothing to train": (
        lambda: optimizer(optax.sgd(0.1)).init(fj.freeze([fj.Frozen(net()), net()])),
        [
            "optimizer(tx).init(params) has nothing to train.",
            "All 6 parameters are frozen, 3 of them inside frozen uses.",
            'Thaw what is to be trained: tree = thaw(tree, "head").',
        ],
    ),
    "no arrays at all": (
        lambda: optimizer(optax.sgd(0.1)).init({"steps": 3}),
        [
            "optimizer(tx).init(params) has nothing to train.",
            "None of the 1 leaf is a floating array.",
            "Hand it the model or its parameters as the first argument.",
        ],
    ),
    "no parameters": (
        without_params,
        [
            "optimizer(tx).update(grads, state) got no parameters, but their names and marks say what is frozen.",
            "Pass them: updates, state = tx.update(grads, state, params).",
        ],
    ),
    "a state of Optax": (
        lambda: optimizer(optax.adam(0.1)).update(net(), optax.adam(0.1).init(net()), net()),
        [
            f"{UPDATE} got a tuple, which is not a state of optimizer(tx).",
            "Make it with the same transformation: state = optimizer(tx).init(params).",
        ],
    ),
    "gradients of a part": (
        lambda: updated({"body": net()["body"], "tail": jnp.ones(1)}, net()),
        [
            DIFFERENT,
            "  head.0: absent in grads, trainable in params",
            "  tail: trainable in grads, absent in params",
            DIFFERENTIATE,
        ],
    ),
    "gradients from before freezing": (
        lambda: updated(net(), fj.freeze(net(), "body")),
        [
            DIFFERENT,
            "  body.b: trainable in grads, frozen in params",
            "  body.w: trainable in grads, frozen in params",
            DIFFERENTIATE,
        ],
    ),
    "gradients of another kind of container": (
        lambda: updated({**net(), "head": (jnp.ones(2),)}, net()),
        [
            DIFFERENT,
            "  grads:  PyTreeDef({'body': {'b': *, 'w': *}, 'head': (*,)})",
            "  params: PyTreeDef({'body': {'b': *, 'w': *}, 'head': [*]})",
            DIFFERENTIATE,
        ],
    ),
    "gradients with holes where it trains": (
        lambda: updated({**net(), "head": [None]}, net()),
        [f"{UPDATE} got gradients without 1 of 3 trainable parameters:", "  head.0", DIFFERENTIATE],
    ),
    "parameters that have lost their marks": (
        lambda: _rebuilt(),
        [
            f"{UPDATE} got parameters in which 2 frozen parameters lost the mark on the way:",
            "  body.b",
            "  body.w",
            "A tree that was rebuilt or loaded has no marks. Mark it again, params = fj.follow(params, state.plan); or "
            "let all of it train, params = fj.thaw(params).",
        ],
    ),
    "a loaded state of parameters that have lost their marks": (
        lambda: _reloaded(),
        [
            "tx.load(saved, params) got parameters in which 1 frozen parameter lost the mark on the way:",
            "  head.0",
            "A tree that was rebuilt or loaded has no marks. Mark it again, params = fj.follow(params, plan); or let "
            "all of it train, params = fj.thaw(params).",
        ],
    ),
    "a parameter that has got another shape": (
        lambda: _regrown(),
        [
            "tx.follow(state, params) got a state in which 2 arrays had another shape when it was made:",
            "  w/0.mu: (5, 3), now (7, 3)",
            "  w/0.nu: (5, 3), now (7, 3)",
            "Make a state for the new shapes: state = tx.init(params).",
        ],
    ),
    "gradients of ties that the parameters do not note": (
        lambda: updated(fj.grad(lambda p: (p["embed"] * p["head"]).sum())(fj.tie(params := tied())), params),
        [
            DIFFERENT,
            "  embed and head: one array in grads, several in params",
            "Say that they are one array in the parameters, too: params = tie(params).",
        ],
    ),
    "two leaves of one name": (
        lambda: optimizer(optax.sgd(0.1)).init({"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}),
        [
            "'a.b' is the name of 2 leaves, and a plan could not distinguish them.",
            "They are:",
            "  a.b",
            "  ['a.b']",
            "Rename a key, for example without the dot, or give the node keys of its own: register_pytree_with_keys.",
        ],
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_whole_text(name: str) -> None:
    act, lines = TEXTS[name]
    with pytest.raises(FrostlineError) as caught:
        act()
    assert str(caught.value).split("\n") == lines
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (type(caught.value), str(caught.value))


def test_the_fix_for_ties_works() -> None:
    params = fj.thaw(tied())
    updated(fj.grad(lambda p: (p["embed"] * p["head"]).sum())(params), params)


def ordered(params: Any) -> tuple[Any, ...]:
    return tuple(jnp.zeros_like(leaf) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "frozen", [("b",), ("b", "c"), ("a", "b")], ids=["two left", "the first left", "the last left"]
)
@pytest.mark.parametrize(
    ("tx", "shared"),
    [
        (optax.flatten(optax.trace(0.9)), "1 array for several parameters at once, the first at state.inner.trace."),
        (
            optax.GradientTransformation(ordered, lambda updates, state, params=None: (updates, state)),
            "1 array for several parameters at once, the first at state.inner[2].",
        ),
    ],
    ids=["one vector", "by order"],
)
def test_state_of_all_parameters_together_is_refused(tx: Any, shared: str, frozen: tuple[str, ...]) -> None:
    tx = optimizer(tx)
    params = {name: jnp.ones(2) for name in "abc"}
    state = tx.init(params)
    tx.update(params, state, params)
    after = fj.freeze(params, *frozen)
    with pytest.raises(UnsupportedError) as caught:
        tx.update(after, state, after)
    assert str(caught.value).split("\n") == [
        "optimizer(tx).update(grads, state, params) cannot train another set of parameters: the state of tx has "
        f"{shared}",
        "Freeze and thaw before state = optimizer(tx).init(params), or use a transformation with an array for each "
        "parameter: optimizer(tx) in place of optimizer(optax.flatten(tx)).",
    ]
