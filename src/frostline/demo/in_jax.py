"""The demo in JAX, with Optax."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.tree_util import register_dataclass

import frostline.jax as fj
from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline.demo.data import Images, Indices
from frostline.demo.learner import FEATURES, WIDTHS, Framework, Learner, Scores, SharedLayer

Network = dict[str, Any]
"""`trunk`, a list of blocks, and `head`, a linear layer."""
Statistics = tuple[Array, ...]
"""Running mean and variance of each block, shape `(2, width)`; a forward pass returns new ones."""


@final
@register_dataclass
@dataclass(frozen=True)
class Linear:
    """A linear layer."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        """`x @ weight + bias`."""
        return x @ self.weight + self.bias


def _forward(network: Network, statistics: Statistics, x: Array, *, stop: bool = False) -> tuple[Array, Statistics]:
    """The scores of the five digits, shape `(n, 5)`, and the running statistics from now on."""
    moved = []
    # Commonly done to freeze by hand: no gradient reaches the trunk.
    trunk = lax.stop_gradient(network["trunk"]) if stop else network["trunk"]
    for number, (block, running) in enumerate(zip(trunk, statistics, strict=True)):
        x = lax.conv_general_dilated(x, block["weight"], window_strides=(1, 1), padding="SAME")
        batch, count = jnp.stack([x.mean((0, 2, 3)), x.var((0, 2, 3))]), x.size // x.shape[1]
        unbiased = batch * jnp.array([[1.0], [count / (count - 1)]])
        # Freezing sets `inference`. No branch of Python: inside jit a bool leaf is an array.
        mean, var = jnp.where(block["inference"], running, batch)[:, :, None, None]
        moved.append(jnp.where(block["inference"], running, 0.9 * running + 0.1 * unbiased))
        scale, shift = (block[name][:, None, None] for name in ("scale", "shift"))
        x = jax.nn.relu((x - mean) * (scale * lax.rsqrt(var + 1e-5)) + shift)
        if number > 0:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return network["head"](x.reshape(len(x), -1)), tuple(moved)


_compiled_forward = jax.jit(_forward)


@final
class _JaxLearner(Learner):
    def __init__(self, network: Network, statistics: Statistics, lr: float) -> None:
        self.network, self.statistics, self._lr, self._stop = network, statistics, lr, False
        self.state = _optimizer(lr).init(network)

    @property
    def head(self) -> Linear:
        return self.network["head"]

    def with_new_head(self, seed: int) -> Learner:
        # Nothing is copied, because nothing is written to.
        head = _linear(np.random.default_rng(seed), FEATURES, 5)
        return _JaxLearner(self.network | {"head": head}, self.statistics, self._lr)

    def freeze(self) -> None:
        self.network = fj.freeze(self.network, "trunk")
        self.state = _optimizer(self._lr).init(self.network)

    def freeze_by_hand(self) -> None:
        self._stop = True

    @contextmanager
    def guarded(self) -> Iterator[Any]:
        def watched() -> Any:
            return fj.freeze({"trunk": fj.strip(self.network)["trunk"], "trunk_statistics": self.statistics})

        with fj.guard(watched()) as watching:
            yield watching
            watching.verify(watched())

    def step(self, batch: Images) -> None:
        arguments = (self.network, self.statistics, self.state, batch.pixels, batch.labels)
        stepped = _step(*arguments, lr=self._lr, stop=self._stop)
        trained, self.state, self.statistics = jax.block_until_ready(stepped)
        self.network = _joined(trained, self.network)

    def scores(self, images: Images, head: Linear | None = None) -> Scores:
        # What is frozen is in evaluation mode.
        network = fj.freeze(fj.strip(self.network) | {"head": head or self.head})
        return np.asarray(_compiled_forward(network, self.statistics, images.pixels)[0])

    def report(self) -> Report:
        return fj.report(self.network, self.state)

    def cost(self, batch: Images) -> Cost:
        def loss(*arguments: Any) -> Array:
            return _loss(*arguments)[0]

        return fj.cost(loss, self.network, self.statistics, batch.pixels, batch.labels, tx=_optimizer(self._lr))

    def cached(self, images: Images, folder: Path) -> Callable[[Indices], None]:
        def loss(network: Network, features: Any, labels: Array) -> Array:
            return _cross_entropy(line.above(network, *features), labels)

        @jax.jit
        def head_step(network: Network, state: Any, features: Any, labels: Array) -> tuple[Network, Any]:
            return _updated(network, state, fj.grad(loss)(network, features, labels), self._lr)

        def step(indices: Indices) -> None:
            stepped = head_step(self.network, self.state, *features_and_labels.batch(indices.tolist()))
            trained, self.state = jax.block_until_ready(stepped)
            self.network = _joined(trained, self.network)

        def forward(network: Network, pixels: Array) -> Array:
            return _forward(network, self.statistics, pixels)[0]

        line = fj.frostline(forward, self.network, images.pixels[:2])
        cache, labelled = fj.FeatureCache(folder, line), list(zip(images.pixels, images.labels, strict=True))
        cache.fill(labelled, batch_size=len(images), progress=False)
        features_and_labels = cache.dataset(labelled)
        return step


def new_learner(seed: int, lr: float) -> Learner:
    """An untrained learner."""
    rng, trunk, statistics = np.random.default_rng(seed), list[Any](), list[Any]()
    for channels, width in WIDTHS:
        # No bias of the convolution: batch norm adds its own.
        weight = _uniform(rng, 9 * channels, (width, channels, 3, 3))
        shift, scale = start = np.array([[0.0] * width, [1.0] * width], np.float32)
        trunk.append({"weight": weight, "scale": scale, "shift": shift, "inference": False})
        statistics.append(start)
    return _JaxLearner({"trunk": trunk, "head": _linear(rng, FEATURES, 5)}, tuple(statistics), lr)


def share_a_layer(images: Images) -> SharedLayer:
    """Builds two models that share the layer `l2`, and takes a step of each."""
    pixels, labels = jnp.asarray(images.pixels.reshape(len(images), -1)), jnp.asarray(images.labels)
    rng = np.random.default_rng(0)
    l1, l2, l3 = _linear(rng, 64, 32), _linear(rng, 32, 32), _linear(rng, 32, 5)
    m0, m1 = (l1, l2, l3), (l1, fj.Frozen(l2), l3)
    hidden = l1(pixels)

    def loss(layers: Any, x: Array) -> Array:
        for layer in layers:
            x = layer(x)
        return _cross_entropy(x, labels)

    def gradients(model: Any) -> tuple[Any, float]:
        to_weight = jax.jit(fj.grad(loss))(model[1:], hidden)[0].weight
        to_input = jax.jit(jax.grad(loss, argnums=1))(model[1:], hidden)
        return None if to_weight is None else float(np.linalg.norm(to_weight)), float(np.linalg.norm(to_input))

    @jax.jit
    def after_a_step(models: Any) -> Any:
        """The models after a step of AdamW over all of them, by the loss of the first."""
        gradient = fj.grad(lambda models: loss(models[0], pixels))(models)
        return _joined(_updated(models, _optimizer(0.01).init(models), gradient, 0.01)[0], models)

    # One tree of both models, tied in the layers that they share.
    (_, trained, _), (_, frozen, _) = after_a_step(fj.tie((m0, m1)))
    ((_, unmoved, _),) = after_a_step((m1,))
    weight_gradients, input_gradients = zip(gradients(m0), gradients(m1), strict=True)
    bits, by_m0, by_m1 = (np.asarray(layer.weight).view(np.int32) for layer in (l2, trained, unmoved))
    moved = float(np.abs(frozen(hidden) - m1[1](hidden)).max())
    changed = int((by_m0 != bits).sum()), int((by_m1 != bits).sum())
    return SharedLayer(weight_gradients, input_gradients, changed, bits.size, moved)


def _optimizer(lr: float) -> optax.GradientTransformation:
    return fj.optimizer(optax.adamw(lr, weight_decay=0.05))


def _updated(network: Any, state: Any, gradient: Any, lr: float) -> tuple[Any, Any]:
    """The part of a network that trains and the state of the optimizer, after an update."""
    updates, state = _optimizer(lr).update(gradient, state, network)
    return optax.apply_updates(fj.split(network)[0], updates), state


def _joined(trained: Any, network: Any) -> Any:
    return fj.join(trained, fj.split(network)[1])


@partial(jax.jit, static_argnames=("lr", "stop"))
def _step(
    network: Network, statistics: Statistics, state: Any, pixels: Array, labels: Array, *, lr: float, stop: bool
) -> tuple[Network, Any, Statistics]:
    value_and_grad = fj.value_and_grad(partial(_loss, stop=stop), has_aux=True)
    (_, statistics), gradient = value_and_grad(network, statistics, pixels, labels)
    return *_updated(network, state, gradient, lr), statistics


def _loss(network: Network, statistics: Statistics, pixels: Array, labels: Array, *, stop: bool = False) -> Any:
    scores, statistics = _forward(network, statistics, pixels, stop=stop)
    return _cross_entropy(scores, labels), statistics


def _cross_entropy(scores: Array, labels: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def _linear(rng: np.random.Generator, channels: int, width: int) -> Linear:
    return Linear(_uniform(rng, channels, (channels, width)), _uniform(rng, channels, (width,)))


def _uniform(rng: np.random.Generator, channels: int, shape: tuple[int, ...]) -> Any:
    # As PyTorch initializes, so that the two demos can be compared; by NumPy, which does not have to compile anything.
    return rng.uniform(-(channels**-0.5), channels**-0.5, shape).astype(np.float32)


FRAMEWORK = Framework(
    name="JAX",
    package="jax",
    by_hand="jax.lax.stop_gradient(trunk)",
    # On the CPU, whatever else there is.
    repeatable=lambda: jax.default_device(jax.devices("cpu")[0]),
    new_learner=new_learner,
    share_a_layer=share_a_layer,
)
