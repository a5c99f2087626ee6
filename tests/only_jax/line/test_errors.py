"""Models without a frost line, and values that a line refuses: the whole text of each error."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array

import frostline.jax as fj
from frostline import NothingTrainableError
from frostline.errors import LineError
from only_jax.line.lined import SEQUENCES, X, net, weights

PLAIN = weights("a", "b", "c")
TREE = fj.freeze(PLAIN, "a")
CALL = "frostline(fn, tree, *example)"
BATCH = "Pass a batch, samples first, as fn takes it after the tree: frostline(fn, tree, x)."
FREE = "Keep the number of samples free: write x.shape[0] instead of a number."
STORED = "Use stored statistics, as in evaluation, or move the part that mixes above: tree = thaw(tree, ...)."
NO_KEY = 'Put the key into the tree, a new one for each step: fn({"net": net, "key": key}, x).'


def dropped(params: Any, x: Array) -> Array:
    first = jnp.tanh(x @ params["a"])
    first = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, first.shape), first, 0)
    return jnp.tanh(first @ params["b"]) @ params["c"]


@jax.jit
def keyed(params: Any, x: Array, keys: Array) -> Array:
    noise = jax.vmap(lambda key: jax.random.normal(key, (4,)))(keys)
    return (jnp.tanh(x @ params["a"]) + noise) @ params["b"]


def normalised(params: Any, x: Array) -> Array:
    first = jnp.tanh(x @ params["a"])
    return ((first - first.mean(0)) @ params["b"]) @ params["c"]


def counted(params: Any, x: Array) -> Array:
    first = jax.pure_callback(lambda x: x, x, x) @ params["a"]
    jax.experimental.io_callback(lambda x: None, None, first)
    first = jax.experimental.io_callback(lambda x: x, first, first) @ params["b"]
    return first @ params["c"]


def placed(params: Any, x: Array) -> Array:
    return jnp.tanh((x + jnp.arange(len(x))[:, None]) @ params["a"]) @ params["b"]


def numbered(params: Any, x: Array) -> Array:
    return jnp.tanh(x @ params["a"] / len(x)) @ params["b"]


REFUSED: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "a sample is computed by its place",
        lambda: fj.frostline(placed, TREE, X),
        [
            f"{CALL} computes a sample by its place in the batch, in 1 value.",
            "  tanh",
            "Give each sample its number as an input, or move the part that counts samples above the line.",
        ],
    ),
    (
        "a sample is computed by how many there are",
        lambda: fj.frostline(numbered, TREE, X),
        [
            f"{CALL} computes a sample by the size of the batch, in 1 value.",
            "  tanh",
            "Take the number of samples, x.shape[0], out of the part below the line.",
        ],
    ),
    (
        "it is drawn inside of jit",
        lambda: jax.jit(lambda x: fj.frostline(net, TREE, x))(X),
        [
            f"{CALL} is called inside a trace, but needs the values of the tree and of the example.",
            f"Draw the line outside of jit, once: line = {CALL}; then jit the functions that use it.",
        ],
    ),
    (
        "nothing is frozen",
        lambda: fj.frostline(net, PLAIN, X),
        [
            f"{CALL} has nothing below its line: 0 of 3 parameters are frozen.",
            'Freeze what is to be below: tree = freeze(tree, "encoder").',
        ],
    ),
    (
        "the input meets a trainable parameter first",
        lambda: fj.frostline(net, fj.freeze(PLAIN, "b", "c"), X),
        [
            f"{CALL} has nothing below its line: the input first meets 1 trainable parameter.",
            "  a",
            'Freeze what comes first: tree = freeze(tree, "a").',
        ],
    ),
    (
        "a parameter is frozen in this use and trains in another one, so it moves here",
        lambda: fj.frostline(
            lambda p, x: x @ p["low"]["w"] @ p["top"],
            fj.tie({"low": fj.Frozen({"w": PLAIN["a"]}), "top": PLAIN["a"]}),
            X,
        ),
        [
            f"{CALL} has nothing below its line: the input first meets 1 trainable parameter.",
            "  top",
            'Freeze what comes first: tree = freeze(tree, "top").',
        ],
    ),
    (
        "a trainable parameter right behind a cast",
        lambda: fj.frostline(
            lambda p, x: (x * 2).astype(jnp.float16) @ (p["a"] + p["b"]) @ p["c"], fj.freeze(PLAIN, "c"), X
        ),
        [
            f"{CALL} has nothing below its line: the input first meets 2 trainable parameters.",
            "  a",
            "  b",
            'Freeze what comes first: tree = freeze(tree, "a").',
        ],
    ),
    (
        "no trainable parameter is used",
        lambda: fj.frostline(lambda p, x: x @ p["a"], TREE, X),
        [
            f"{CALL} returns nothing that depends on its 2 trainable parameters.",
            "  b",
            "  c",
            'Train a part that it uses: tree = thaw(tree, "head").',
        ],
    ),
    (
        "no example",
        lambda: fj.frostline(net, TREE),
        [f"{CALL} has 0 arrays in its example, but needs at least 1.", BATCH],
    ),
    (
        "arrays of different numbers of samples",
        lambda: fj.frostline(net, TREE, {"x": X, "mask": jnp.ones((1, 4)), "scale": jnp.ones(())}),
        [
            f"{CALL} has arrays with 1, 3, no samples in its example, but all need the same number, at least 1, first.",
            "  inputs[0]['mask']: shape (1, 4)",
            "  inputs[0]['scale']: shape ()",
            "  inputs[0]['x']: shape (3, 4)",
            "Close over an array that has no samples: frostline(lambda tree, x: fn(tree, x, mask), tree, x).",
        ],
    ),
    (
        "an example of the wrong shape",
        lambda: fj.frostline(net, TREE, X[:, :3]),
        [
            f"{CALL} cannot be traced with this example.",
            "  TypeError: dot_general requires contracting dimensions to have the same shape, got (3,) and (4,).",
            "  inputs[0]: shape (3, 3)",
            BATCH,
        ],
    ),
    (
        "a number of samples that is written down",
        lambda: fj.frostline(lambda p, x: net(p, x.reshape(3, 4)), TREE, X),
        [
            f"{CALL} can be traced with 3 samples, but is another function for 2.",
            "  TypeError: cannot reshape array of shape (2, 4) (size 8) into shape (3, 4) (size 12)",
            FREE,
        ],
    ),
    (
        "something else for another number of samples",
        lambda: fj.frostline(lambda p, x: net(p, x if len(x) < 3 else jnp.sin(x)), TREE, X),
        [f"{CALL} can be traced with 2 samples, but is another function for 3.", FREE],
    ),
    (
        "dropout below",
        lambda: fj.frostline(dropped, fj.freeze(PLAIN, "a", "b"), X),
        [
            f"{CALL} may change from call to call below its line, in 1 step.",
            "  random_bits",
            "Switch it off there, as in evaluation, or thaw the part after it.",
        ],
    ),
    (
        "a callback below",
        lambda: fj.frostline(counted, fj.freeze(PLAIN, "a", "b"), X),
        [
            f"{CALL} may change from call to call below its line, in 1 step.",
            "  io_callback",
            "Switch it off there, as in evaluation, or thaw the part after it.",
        ],
    ),
    (
        "keys among the inputs",
        lambda: fj.frostline(keyed, TREE, X, jax.random.split(jax.random.key(0), 3)),
        [
            f"{CALL} takes a random key as an input, for 1 random step, which would be the same in each epoch.",
            "  random_bits",
            NO_KEY,
        ],
    ),
    (
        "statistics of the batch below",
        lambda: fj.frostline(normalised, fj.freeze(PLAIN, "a", "b"), X),
        [f"{CALL} mixes samples below its line, in 1 value.", "  dot_general", STORED],
    ),
    (
        "steps first, and merged with samples",
        lambda: fj.frostline(lambda p, x: net(p, jnp.swapaxes(x, 0, 1).reshape(-1, 4)), TREE, SEQUENCES),
        [f"{CALL} mixes samples below its line, in 1 value.", "  tanh", STORED],
    ),
    (
        "a mean over the samples",
        lambda: fj.frostline(lambda p, x: (x @ p["a"]).mean(0) @ p["b"] @ p["c"], fj.freeze(PLAIN, "a", "b"), X),
        [f"{CALL} mixes samples below its line, in 1 value.", "  dot_general", STORED],
    ),
]


@pytest.mark.parametrize(("act", "lines"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_it_is_refused_with_the_whole_text(act: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(LineError) as caught:
        act()
    assert str(caught.value).splitlines() == lines
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_all_frozen_has_nothing_to_train() -> None:
    with pytest.raises(NothingTrainableError) as caught:
        fj.frostline(net, fj.freeze(PLAIN), X)
    assert str(caught.value).splitlines() == [
        f"{CALL} has nothing to train.",
        "All 3 parameters are frozen, 0 of them inside frozen uses.",
        'Thaw what is to be trained: tree = thaw(tree, "head").',
    ]


def test_samples_may_be_counted_if_it_makes_no_difference() -> None:
    """Negative control: a sample may use its own position, and the part above may use the batch size."""

    def own(params: Any, x: Array) -> Array:
        return jnp.tanh(x[jnp.arange(len(x)), -1] @ params["a"]) @ params["b"] / len(x)

    assert [each.name for each in fj.frostline(own, TREE, SEQUENCES).boundary] == ["tanh"]


LINE = fj.frostline(net, TREE, X)
VALUE = LINE.below(X)[0]
GIVEN: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "inputs of another shape",
        lambda: LINE.below(X[:, :3]),
        [
            "line.below(*inputs) got float32 (3, 3), but the line was drawn for:",
            "  inputs[0]: float32 (samples, 4)",
            "Draw a line for them: frostline(fn, tree, *inputs).",
        ],
    ),
    (
        "inputs of another dtype, and one too many",
        lambda: LINE.below(X, jnp.arange(3)),
        [
            "line.below(*inputs) got float32 (3, 4), int32 (3,), but the line was drawn for:",
            "  inputs[0]: float32 (samples, 4)",
            "Draw a line for them: frostline(fn, tree, *inputs).",
        ],
    ),
    (
        "a boundary of another shape",
        lambda: LINE.above(TREE, VALUE[0]),
        [
            "line.above(tree, *boundary) got float32 (4,), but the values at the line are:",
            "  tanh: float32 (samples, 4)",
            "Pass what line.below returns: line.above(tree, *line.below(*inputs)).",
        ],
    ),
    (
        "another tree",
        lambda: LINE.above({"a": PLAIN["a"]}, VALUE),
        [
            "line.above(tree, *boundary) got a tree of another structure than the tree of the line.",
            "Pass that tree, after any number of steps, or draw another line: frostline(fn, tree, *example).",
        ],
    ),
    (
        "another number, which is written into the trace",
        lambda: fj.frostline(lambda p, x: net(p, x) * p["scale"], fj.freeze({**PLAIN, "scale": 2.0}, "a"), X).above(
            {**PLAIN, "scale": 3.0}, VALUE
        ),
        [
            "line.above(tree, *boundary) got a tree that differs from the tree of the line in 1 of 4 leaves.",
            "  scale: 3.0, not 2.0",
            "Pass that tree, after any number of steps, or draw another line: frostline(fn, tree, *example).",
        ],
    ),
    (
        "arrays of other shapes",
        lambda: LINE.above(weights("a", "b", "c", size=5), VALUE),
        [
            "line.above(tree, *boundary) got a tree that differs from the tree of the line in 3 of 3 leaves.",
            "  a: float32 (5, 5), not float32 (4, 4)",
            "  b: float32 (5, 5), not float32 (4, 4)",
            "  c: float32 (5, 5), not float32 (4, 4)",
            "Pass that tree, after any number of steps, or draw another line: frostline(fn, tree, *example).",
        ],
    ),
]
TRAINED_BELOW = [
    "line.above(tree, *boundary) is differentiated with respect to 1 parameter below the line.",
    "  a",
    "Freeze it again, or draw the line again: line = frostline(fn, tree, *example).",
]


@pytest.mark.parametrize(("act", "lines"), [case[1:] for case in GIVEN], ids=[case[0] for case in GIVEN])
def test_values_that_do_not_fit_are_refused(act: Callable[[], object], lines: list[str]) -> None:
    with pytest.raises(LineError) as caught:
        act()
    assert str(caught.value).splitlines() == lines


def above(tree: Any, value: Array) -> Array:
    return LINE.above(tree, value).sum()


@pytest.mark.parametrize(
    "act",
    [
        lambda: fj.grad(above)(fj.thaw(TREE, "a"), VALUE),
        lambda: jax.jit(fj.grad(above))(fj.thaw(TREE, "a"), VALUE),
        lambda: jax.grad(above)(PLAIN, VALUE),
        lambda: jax.grad(jax.jit(above))(PLAIN, VALUE),
        lambda: jax.jvp(lambda a: above({**PLAIN, "a": a}, VALUE), (PLAIN["a"],), (PLAIN["a"],)),
    ],
    ids=["thawed", "thawed in jit", "jax.grad", "jit in jax.grad", "jvp"],
)
def test_a_gradient_for_a_parameter_below_is_refused_and_not_zero(act: Callable[[], object]) -> None:
    with pytest.raises(LineError) as caught:
        act()
    assert str(caught.value).splitlines() == TRAINED_BELOW


def test_a_gradient_for_the_boundary_and_for_the_part_above_is_allowed() -> None:
    """The negative control."""
    assert jax.grad(lambda value: above(TREE, value))(VALUE).shape == (3, 4)
    assert jax.jit(fj.grad(above))(fj.freeze(TREE, "c"), VALUE)["c"] is None
    assert jax.grad(lambda c: above({**PLAIN, "c": c}, VALUE))(PLAIN["c"]).shape == (4, 4)
