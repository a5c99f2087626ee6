"""Layers as plain pytrees, with the names and the arithmetic of PyTorch's; nothing but JAX."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.tree_util import SequenceKey, register_dataclass, register_pytree_with_keys


@register_dataclass
@dataclass
class Linear:
    weight: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.weight.T + self.bias

    def train_step(self, x: jax.Array) -> tuple[jax.Array, Self]:
        return self(x), self


@register_dataclass
@dataclass
class BatchNorm1d:
    """Keeps running statistics, and stores its mode as data."""

    weight: jax.Array
    bias: jax.Array
    running_mean: jax.Array
    running_var: jax.Array
    inference: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, var = self._statistics(x)
        return (x - mean) / jnp.sqrt(var + 1e-5) * self.weight + self.bias

    def train_step(self, x: jax.Array) -> tuple[jax.Array, Self]:
        mean, var = self._statistics(x)
        moved = 0.9 * self.running_mean + 0.1 * mean, 0.9 * self.running_var + 0.1 * var
        kept = (self.running_mean, self.running_var) if self.inference else jax.lax.stop_gradient(moved)
        return self(x), replace(self, running_mean=kept[0], running_var=kept[1])

    def _statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (self.running_mean, self.running_var) if self.inference else (x.mean(0), x.var(0))


@register_dataclass
@dataclass
class Dropout:
    """Drops a new half of the features in each call in training mode."""

    inference: bool = False
    calls: list[int] = field(default_factory=list, metadata={"static": True})

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.inference:
            return x
        self.calls.append(len(self.calls))
        kept = jax.random.bernoulli(jax.random.key(len(self.calls)), 0.5, x.shape)
        return jnp.where(kept, 2 * x, 0)

    def train_step(self, x: jax.Array) -> tuple[jax.Array, Self]:
        return self(x), self


class Sequential:
    """Its layers are its direct children."""

    def __init__(self, *layers: Any) -> None:
        self.layers = layers

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x

    def train_step(self, x: jax.Array) -> tuple[jax.Array, Any]:
        moved = []
        for layer in self.layers:
            x, after = layer.train_step(x)
            moved.append(after)
        return x, Sequential(*moved)


register_pytree_with_keys(
    Sequential,
    lambda chain: ([(SequenceKey(i), layer) for i, layer in enumerate(chain.layers)], None),
    lambda _, layers: Sequential(*layers),
)
