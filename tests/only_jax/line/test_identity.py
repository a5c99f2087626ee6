"""The fingerprint of a line: it changes with everything below, and with nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import frostline.jax as fj
from frostline.errors import LineError
from only_jax.line.lined import X, net, weights

PLAIN = weights("a", "b", "c")


def fingerprint_of(tree: Any, fn: Any = net, *inputs: Any) -> str:
    return fj.frostline(fn, tree, *(inputs or (X,))).fingerprint()


HERE = fingerprint_of(fj.freeze(PLAIN, "a"))


def moved(name: str) -> Any:
    """The tree with one bit of one parameter flipped."""
    array = np.array(PLAIN[name])
    array.view(np.uint32)[3, 3] ^= 1
    return PLAIN | {name: jnp.asarray(array)}


def test_it_does_not_change_with_the_part_above() -> None:
    assert fingerprint_of(fj.freeze(moved("b"), "a")) == HERE
    assert fingerprint_of(fj.freeze(moved("b"), "a", "c")) == HERE
    assert fingerprint_of(fj.freeze(PLAIN, "a"), lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"] @ p["c"]) == HERE
    assert fingerprint_of(fj.freeze(PLAIN, "a"), net, X[:2] + 1) == HERE
    assert fingerprint_of(fj.freeze(PLAIN | {"c": jnp.ones((4, 7)), "0": jnp.ones(2)}, "a")) == HERE


def test_it_changes_with_one_bit_below_and_with_the_steps_there() -> None:
    constant = jnp.arange(4.0)
    others = [
        fingerprint_of(fj.freeze(moved("a"), "a")),
        fingerprint_of(fj.freeze(PLAIN, "a", "b")),
        fingerprint_of(fj.freeze(PLAIN, "a"), lambda p, x: jnp.sin(x @ p["a"]) @ p["b"] @ p["c"]),
        fingerprint_of(fj.freeze(PLAIN, "a"), net, X.astype(jnp.float16)),
        fingerprint_of(fj.freeze(PLAIN, "a"), lambda p, x: net(p, x * constant)),
        fingerprint_of(fj.freeze(PLAIN, "a"), lambda p, x: net(p, x * (constant + 1))),
        fingerprint_of(fj.freeze(PLAIN, "a"), lambda p, x: net(p, jax.jit(lambda x: x * constant)(x))),
        fingerprint_of(fj.freeze(PLAIN, "a"), lambda p, x: net(p, jax.jit(lambda x: x * (constant + 1))(x))),
    ]
    assert len({HERE, *others}) == 1 + len(others)


def test_it_knows_which_array_is_which() -> None:
    """Two trees have the same arrays under the same names, but store and use them in another order."""

    @partial(jax.tree_util.register_dataclass, data_fields=["b", "a", "c"], meta_fields=[])
    @dataclass
    class Turned:
        a: Any
        b: Any
        c: Any

    def one(tree: Any, x: Array) -> Array:
        return x @ tree.a @ tree.b @ tree.c

    def other(tree: Any, x: Array) -> Array:
        return x @ tree.b @ tree.a @ tree.c

    in_dict = fingerprint_of(fj.freeze(PLAIN, "a", "b"), lambda tree, x: one(Turned(**tree), x))
    assert fingerprint_of(fj.freeze(Turned(**PLAIN), "a", "b"), other) != in_dict


def test_a_leaf_that_is_thawed_below_moves_the_line() -> None:
    tree = fj.freeze(PLAIN, "a", "b")
    before, after = fj.frostline(net, tree, X), fj.frostline(net, fj.thaw(tree, "b"), X)
    assert [each.name for each in before.boundary] == ["sin"]
    assert [each.name for each in after.boundary] == ["tanh"]
    assert before.fingerprint() != after.fingerprint() == HERE


def rule(x: Array) -> Array:
    return jax.nn.relu(jax.nn.silu(x))


def of_functions() -> str:
    """The fingerprint of a line whose text shows the addresses of functions in memory."""
    tree = fj.freeze(PLAIN, "a")
    return fingerprint_of(tree, lambda p, x: (rule(x @ p["a"]) @ p["a"]) @ p["b"])


def test_it_is_the_same_in_another_process() -> None:
    code = "from only_jax.line.test_identity import *; print(HERE, of_functions())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [HERE, of_functions()]


def test_a_python_function_has_no_fingerprint() -> None:
    """A trace cannot distinguish two of them, so both would use the same features."""

    def called(params: Any, x: Array) -> Array:
        return net(params, jax.jit(lambda x: jax.pure_callback(lambda x: x * 2, x, x))(x))

    line = fj.frostline(called, fj.freeze(PLAIN, "a"), X)
    with pytest.raises(LineError) as caught:
        line.fingerprint()
    assert str(caught.value).splitlines() == [
        "line.fingerprint() cannot cover 1 Python function below the line, whose work may change.",
        "  pure_callback",
        'Call it in the dataset, and give it a name: FeatureCache(..., preprocessing="name").',
    ]
