"""The small convolutional network with batch norm as pytrees: its parameters here, its running statistics beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import register_dataclass

WIDTH = 16
FEATURES = 2 * WIDTH * 2 * 2
MOMENTUM = 0.1


@final
@register_dataclass
@dataclass(frozen=True)
class Statistics:
    """What batch norm has seen so far; no parameters: the forward pass moves them, and no optimizer.

    Attributes:
        mean: of each channel.
        var: of each channel.
    """

    mean: jax.Array
    var: jax.Array


@final
@register_dataclass
@dataclass(frozen=True)
class Norm:
    """Batch norm over scans and pixels.

    Attributes:
        weight: the deviation of each channel.
        bias: the mean of each channel.
        inference: whether it goes by what was seen, and adds nothing to it; freezing sets it.
    """

    weight: jax.Array
    bias: jax.Array
    inference: bool | jax.Array = False

    def __call__(self, x: jax.Array, seen: Statistics) -> tuple[jax.Array, Statistics]:
        """The channels, normalised, and the statistics from now on."""
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        count = x.size // x.shape[1]
        moved = Statistics(_towards(seen.mean, mean), _towards(seen.var, var * count / (count - 1)))
        # No branch of Python: inside of jit a bool leaf is an array.
        mean, var = jnp.where(self.inference, seen.mean, mean), jnp.where(self.inference, seen.var, var)
        scale = self.weight * lax.rsqrt(var + 1e-5)
        y = (x - _over_pixels(mean)) * _over_pixels(scale) + _over_pixels(self.bias)
        return y, jax.tree.map(lambda old, new: jnp.where(self.inference, old, new), seen, moved)


@final
@register_dataclass
@dataclass(frozen=True)
class Conv:
    """A convolution with 3 by 3 pixels, and no bias: batch norm adds one of its own."""

    weight: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scans of other channels, shape `(n, made, h, w)`."""
        return lax.conv_general_dilated(x, self.weight, window_strides=(1, 1), padding="SAME")


@final
@register_dataclass
@dataclass(frozen=True)
class Block:
    """Convolution, batch norm, activation, and maybe a pooling."""

    conv: Conv
    norm: Norm
    pools: bool = field(metadata={"static": True})

    def __call__(self, x: jax.Array, seen: Statistics) -> tuple[jax.Array, Statistics]:
        """What it sees, and the statistics from now on."""
        y, seen = self.norm(self.conv(x), seen)
        y = jax.nn.relu(y)
        return (_pooled(y) if self.pools else y), seen


@final
@register_dataclass
@dataclass(frozen=True)
class Trunk:
    """The part that sees.

    Attributes:
        first, second, third: its blocks.
        is_stopped: whether no gradient reaches them: frozen as it is commonly done by hand.
    """

    first: Block
    second: Block
    third: Block
    is_stopped: bool = field(default=False, metadata={"static": True})

    def __call__(self, x: jax.Array, seen: tuple[Statistics, ...]) -> tuple[jax.Array, tuple[Statistics, ...]]:
        """What it sees in scans, shape `(n, FEATURES)`, and the statistics from now on."""
        blocks, moved = (self.first, self.second, self.third), []
        for block, statistics in zip(lax.stop_gradient(blocks) if self.is_stopped else blocks, seen, strict=True):
            x, now = block(x, statistics)
            moved.append(now)
        return x.reshape(len(x), -1), tuple(moved)


@final
@register_dataclass
@dataclass(frozen=True)
class Linear:
    """An affine map; the head, and each layer of the two models that share one."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x @ weight + bias`, shape `(n, made)`."""
        return x @ self.weight + self.bias


@final
@register_dataclass
@dataclass(frozen=True)
class Network:
    """Tells five digits apart: a trunk that sees, and a head that names.

    Example:
        >>> network, statistics = new_network(seed=0)
        >>> features, statistics = network.trunk(jnp.zeros((3, 1, 8, 8)), statistics)
        >>> network.head(features).shape
        (3, 5)
    """

    trunk: Trunk
    head: Linear


def new_network(seed: int) -> tuple[Network, tuple[Statistics, ...]]:
    """A network that knows nothing yet, and its statistics."""
    dice = np.random.default_rng(seed)
    widths = (1, WIDTH), (WIDTH, 2 * WIDTH), (2 * WIDTH, 2 * WIDTH)
    first, second, third = (
        _new_block(dice, *width, pools=pools) for width, pools in zip(widths, (False, True, True), strict=True)
    )
    statistics = tuple(Statistics(_filled(0, made), _filled(1, made)) for _, made in widths)
    return Network(Trunk(first, second, third), new_linear(dice, FEATURES, 5)), statistics


def new_head(seed: int) -> Linear:
    """A head that knows nothing yet."""
    return new_linear(np.random.default_rng(seed), FEATURES, 5)


def new_linear(dice: np.random.Generator, channels: int, made: int) -> Linear:
    """An affine map that knows nothing yet."""
    return Linear(_uniform(dice, channels, (channels, made)), _uniform(dice, channels, (made,)))


def _new_block(dice: np.random.Generator, channels: int, made: int, *, pools: bool) -> Block:
    conv = Conv(_uniform(dice, 9 * channels, (made, channels, 3, 3)))
    return Block(conv, Norm(_filled(1, made), _filled(0, made)), pools)


def _uniform(dice: np.random.Generator, channels: int, shape: tuple[int, ...]) -> jax.Array:
    # As PyTorch begins, so that the two demos can be compared. Made by NumPy, which need not compile anything.
    return jnp.asarray(dice.uniform(-(channels**-0.5), channels**-0.5, shape).astype(np.float32))


def _filled(value: float, made: int) -> jax.Array:
    return jnp.asarray(np.full(made, value, np.float32))


def _towards(old: jax.Array, new: jax.Array) -> jax.Array:
    return (1 - MOMENTUM) * old + MOMENTUM * new


def _over_pixels(channels: jax.Array) -> jax.Array:
    return channels[:, None, None]


def _pooled(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
