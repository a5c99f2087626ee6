"""Frozen uses of objects that are opaque to JAX: functions over arrays, and objects that are not pytrees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import frostline.jax as fj
from frostline.errors import LayerError
from only_jax.trees import linear


class _Opaque:
    def __init__(self, w: Any) -> None:
        self.w = w

    def __call__(self, x: Any) -> Any:
        return self.w * x


def _scaled(w: Any, x: Any) -> Any:
    return w * x


HIDDEN = [
    "Frozen(function) holds a function that closes over arrays. JAX cannot see them, and they would train.",
    "Pass them as arguments: Frozen(jax.tree_util.Partial(function, params)).",
]
NO_PYTREE = [
    "Frozen(_Opaque) holds a _Opaque, which is not a pytree: JAX cannot see its parameters, and they would train.",
    "Register its class with jax.tree_util.register_dataclass. For linen and Haiku use the Frozen of "
    "frostline.integrations.",
]


class TestWhatCannotBeSeen:
    """Arrays that JAX does not find in a layer cannot be stopped: their gradients would pass unnoticed."""

    @pytest.mark.parametrize(
        ("layer", "lines"),
        [
            (lambda w: lambda x: w * x, HIDDEN),
            (lambda w: jax.jit(lambda x: w * x), HIDDEN),
            (lambda w: jax.vmap(lambda x: w * x), HIDDEN),
            (lambda w: partial(_scaled, w), HIDDEN),
            (lambda w: partial(lambda x, **params: x * params["w"], w=w), HIDDEN),
            (lambda w: partial(lambda x: partial(_scaled, w)(x)), HIDDEN),
            (lambda w: {"act": lambda x: w * x}, HIDDEN),
            (_Opaque, NO_PYTREE),
            (lambda w: _Opaque(w).__call__, NO_PYTREE),
        ],
    )
    def test_the_whole_text(self, layer: Callable[[Any], Any], lines: list[str]) -> None:
        with pytest.raises(LayerError) as caught:
            jax.grad(lambda w: fj.Frozen(layer(w))(jnp.ones(2)).sum())(jnp.ones(2))
        assert str(caught.value).split("\n") == lines

    def test_the_fix_of_the_text(self) -> None:
        def frozen(w: Array) -> Array:
            return fj.Frozen(jax.tree_util.Partial(_scaled, w))(w).sum()

        assert jax.grad(frozen)(jnp.ones(2)).tolist() == [1.0, 1.0]

    @pytest.mark.parametrize(
        "function",
        [
            jnp.tanh,
            jnp.add,
            jax.nn.relu,
            jax.nn.gelu,
            np.sin,
            abs,
            dict,
            lambda x: x,
            partial(_scaled, jnp.ones(2)),
            linear(1),
        ],
    )
    def test_functions_without_traced_arrays_are_layers(self, function: Any) -> None:
        assert fj.trainable([fj.Frozen(function)]) == {}
        assert jax.jit(lambda x: (fj.Frozen(function), x)[1])(1) == 1

    def test_a_function_that_calls_itself(self) -> None:
        def down(x: int) -> int:
            return down(x - 1) if x else 7

        assert fj.Frozen(down)(3) == 7
