"""Losses over a list of four layers, and the bytes that a real step of them saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import frostline.jax as fj
from frostline.jax._cost.step import Step
from frostline.jax._freezing.survey import survey

Loss = Callable[[Any, Array], Array]
PLACES = {"prefix": "[:2]", "middle": "[1:3]", "suffix": "[1:]", "scattered": "[1]"}


def weights(*shape: int) -> list[Array]:
    dice = np.random.default_rng(0)
    return [jnp.asarray(dice.normal(size=shape) / shape[-2] ** 0.5, jnp.float32) for _ in range(4)]


def data(*shape: int) -> Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def stack(act: Callable[[Array], Array]) -> Loss:
    def loss(layers: Any, x: Array) -> Array:
        for w in layers:
            x = act(x @ w)
        return (x**2).mean()

    return loss


def products(layers: Any, x: Array) -> Array:
    for w in layers:
        x = x @ w
    return x.sum()


def normed(x: Array) -> Array:
    return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)


def residual(layers: Any, x: Array) -> Array:
    for w in layers:
        x = x + jax.nn.gelu(normed(x) @ w)
    return (x**2).mean()


def attention(layers: Any, x: Array) -> Array:
    for w in layers:
        heads = (normed(x) @ w).reshape(*x.shape[:2], 2, -1)
        scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", heads, heads))
        x = x + jnp.einsum("bhqk,bkhd->bqhd", scores, heads).reshape(x.shape)
    return (x**2).mean()


def scanned(layers: Any, x: Array) -> Array:
    first, *middle, last = layers
    x, _ = lax.scan(lambda carry, w: (jax.nn.gelu(carry @ w), None), jnp.tanh(x @ first), jnp.stack(middle))
    return ((x @ last) ** 2).mean()


def branching(layers: Any, x: Array) -> Array:
    for w in layers:
        x = lax.cond(x[0, 0] > -9, lambda x, w=w: jnp.tanh(x @ w), lambda x: x, x)
    return (x**2).mean()


def repeated(layers: Any, x: Array) -> Array:
    for w in layers:
        x = jax.checkpoint(lambda x, w: jax.nn.gelu(jnp.tanh(x @ w) @ w))(x, w)
    return (x**2).mean()


def convolved(stride: int = 1, groups: int = 1, act: Callable[[Array], Array] = jax.nn.gelu) -> Loss:
    names = ("NHWC", "HWIO", "NHWC")

    def loss(layers: Any, x: Array) -> Array:
        for w in layers:
            kernel = w[:, :, : 8 // groups]
            x = lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", None, None, names, groups)
            x = act(normed(x))
        return (x**2).mean()

    return loss


FLAT, ROWS, IMAGES = (16, 8), (4, 4, 8), (2, 9, 9, 8)
SQUARE, KERNEL = (8, 8), (3, 3, 8, 8)
MODELS: dict[str, tuple[Loss, tuple[int, ...], tuple[int, ...]]] = {
    "gelu": (stack(jax.nn.gelu), SQUARE, FLAT),
    "silu": (stack(jax.nn.silu), SQUARE, FLAT),
    "relu": (stack(jax.nn.relu), SQUARE, FLAT),
    "residual": (residual, SQUARE, FLAT),
    "jitted": (jax.jit(residual), SQUARE, FLAT),
    "attention": (attention, SQUARE, ROWS),
    "scanned": (scanned, SQUARE, FLAT),
    "branching": (branching, SQUARE, FLAT),
    "repeated": (repeated, SQUARE, FLAT),
    "convolved": (convolved(), KERNEL, IMAGES),
    "strided": (convolved(2), KERNEL, IMAGES),
    "grouped": (convolved(groups=4), KERNEL, IMAGES),
    "depthwise": (convolved(groups=8, act=jax.nn.relu), KERNEL, IMAGES),
}


def made(model: str, place: str) -> tuple[Loss, Any, Array]:
    loss, shape, batch = MODELS[model]
    return loss, fj.freeze(weights(*shape), PLACES[place]), data(*batch)


def predicted(loss: Loss, tree: Any, *batch: Any) -> int:
    """``cost(loss, tree, *batch).now.saved_bytes``, without the rest of a cost."""
    return Step.traced(loss, survey(tree), batch, {}, all_trained=False).saved.total()


def really_saved(loss: Loss, tree: Any, *batch: Any) -> int:
    """The bytes that a real step saves, without arguments and without zeros, which XLA creates at their use."""
    trained, rest = fj.split(tree)
    pullback = jax.vjp(lambda trained: loss(fj.strip(fj.join(trained, rest)), *batch), trained)[1]
    arguments = {id(leaf) for leaf in jax.tree.leaves((tree, batch))}
    arrays = {id(leaf): leaf for leaf in jax.tree.leaves(pullback)}
    return sum(leaf.nbytes for number, leaf in arrays.items() if number not in arguments and np.any(leaf))
