"""Networks written twice, in PyTorch and in JAX, with the same names, numbers and steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import Array, lax
from torch import Tensor, nn
from torch.nn import functional

import frostline.jax as fj
import frostline.torch as ft


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second, self.third):
            x = functional.relu(layer(x))
        return self.last(x)


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.third, self.last = nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.first(x)), 2)
        x = functional.relu(self.third(functional.relu(self.second(x))))
        return self.last(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = functional.softmax(q @ k.transpose(-1, -2), -1) @ v
        return x + self.o(mixed.transpose(1, 2).flatten(2))


class Attentions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Attention(), Attention()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


def _linear(layer: Any, x: Array) -> Array:
    return x @ layer["weight"].T + layer["bias"]


def _convolved(layer: Any, x: Array, stride: int = 1) -> Array:
    found = lax.conv_general_dilated(x, layer["weight"], (stride, stride), ((1, 1), (1, 1)))
    return found + layer["bias"][:, None, None]


def mlp(tree: Any, x: Array) -> Array:
    for name in ("first", "second", "third"):
        x = jax.nn.relu(_linear(tree[name], x))
    return _linear(tree["last"], x)


def conv(tree: Any, x: Array) -> Array:
    x = jax.nn.relu(_convolved(tree["first"], x))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    x = jax.nn.relu(_convolved(tree["second"], x))
    x = jax.nn.relu(_convolved(tree["third"], x, stride=2))
    return _linear(tree["last"], x.mean((2, 3)))


def _attention(tree: Any, x: Array) -> Array:
    q, k, v = (_linear(tree[name], x).reshape(*x.shape[:2], 2, 4).swapaxes(1, 2) for name in "qkv")
    mixed = jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ v
    return x + _linear(tree["o"], mixed.swapaxes(1, 2).reshape(x.shape))


def attentions(tree: Any, x: Array) -> Array:
    return _attention(tree["two"], _attention(tree["one"], x))


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any, Array], Array], tuple[int, ...]]] = {
    "mlp": (Mlp, mlp, (16, 4)),
    "conv": (Conv, conv, (2, 3, 8, 8)),
    "attention": (Attentions, attentions, (2, 4, 8)),
}


@final
@dataclass
class Twins:
    """One network in both frameworks, frozen in the same way.

    Attributes:
        model: a module.
        fn: the function of a tree and of an input.
        tree: the tree, with marks.
        batch: what both are called with.
    """

    model: nn.Module
    fn: Callable[[Any, Array], Array]
    tree: Any
    batch: np.ndarray

    @classmethod
    def of(cls, net: str, *selectors: str, salt: float = 0) -> Twins:
        """New networks, whose numbers depend on the salt."""
        make, fn, shape = NETS[net]
        model, tree = make(), {}
        for place, (path, parameter) in enumerate(model.named_parameters()):
            values = numbers(*parameter.shape, salt=salt + place) / 2
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(values))
            *keys, last = path.split(".")
            inner = tree
            for key in keys:
                inner = inner.setdefault(key, {})
            inner[last] = jnp.asarray(values)
        if selectors:
            ft.freeze(model, *selectors)
            tree = fj.freeze(tree, *selectors)
        return cls(model, fn, tree, numbers(*shape, salt=-1))

    @property
    def tensor(self) -> Tensor:
        """The batch in PyTorch."""
        return torch.from_numpy(self.batch)

    @property
    def array(self) -> Array:
        """The batch in JAX."""
        return jnp.asarray(self.batch)


def numbers(*shape: int, salt: float) -> np.ndarray:
    count = np.arange(np.prod(shape), dtype=np.float32)
    return np.cos(count * 0.7 + salt).reshape(shape).astype(np.float32)
