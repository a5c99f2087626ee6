"""The models that are measured: twelve layers, nine of them frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks.in_jax.case import LAYERS

Params = dict[str, list[dict[str, Array]]]
Loss = Callable[[Any, Array], Array]
Model = tuple[Params, Loss, Array]
"""Parameters, the loss over them, and a batch."""


def mlp(width: int, batch: int, activation: Callable[[Array], Array] = jax.nn.relu) -> Model:
    """Linear layers with biases, and an activation after each."""

    def layer(key: Array) -> dict[str, Array]:
        return {"w": dense(key, width, width), "b": jnp.full(width, 0.1)}

    def loss(params: Any, x: Array) -> Array:
        for layer in params["layers"]:
            x = activation(x @ layer["w"] + layer["b"])
        return jnp.mean((x - 1) ** 2)

    return chain(layer), loss, jax.random.normal(jax.random.key(1), (batch, width))


def transformer(width: int, batch: int, length: int) -> Model:
    """Blocks of attention with four heads and an MLP, normalised before each."""

    def layer(key: Array) -> dict[str, Array]:
        shapes = {
            "qkv": (width, 3 * width),
            "out": (width, width),
            "up": (width, 4 * width),
            "down": (4 * width, width),
        }
        keys = jax.random.split(key, len(shapes))
        weights = {name: dense(k, *shape) for (name, shape), k in zip(shapes.items(), keys, strict=True)}
        return weights | {"norm1": jnp.ones(width), "norm2": jnp.ones(width)}

    def loss(params: Any, x: Array) -> Array:
        for layer in params["layers"]:
            x = x + attention(layer, normalised(x, layer["norm1"]))
            x = x + jax.nn.gelu(normalised(x, layer["norm2"]) @ layer["up"]) @ layer["down"]
        return jnp.mean((x - 1) ** 2)

    return chain(layer), loss, jax.random.normal(jax.random.key(1), (batch, length, width))


def chain(layer: Callable[[Array], dict[str, Array]]) -> Params:
    """Twelve layers."""
    return {"layers": [layer(key) for key in jax.random.split(jax.random.key(0), LAYERS)]}


def dense(key: Array, before: int, after: int) -> Array:
    """Weights that keep the size of what passes."""
    return jax.random.normal(key, (before, after)) / before**0.5


def normalised(x: Array, scale: Array) -> Array:
    """Root mean square normalisation."""
    return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * scale


def attention(layer: dict[str, Array], x: Array) -> Array:
    """Of each token to each; four heads."""
    batch, length, width = x.shape
    q, k, v = (t.reshape(batch, length, 4, -1) for t in jnp.split(x @ layer["qkv"], 3, axis=-1))
    weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * (4 / width) ** 0.5)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape) @ layer["out"]


MODELS: dict[str, Callable[[], Model]] = {
    "mlp": lambda: mlp(512, 256),
    "gelu mlp": lambda: mlp(256, 512, jax.nn.gelu),
    "transformer": lambda: transformer(128, 8, 64),
    "small mlp": lambda: mlp(128, 128),
}
