"""JAX: epochs from a feature cache beside live ones, of twelve transformer layers of which nine are frozen."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import frostline.jax as fj
from benchmarks.in_jax.models import attention, normalised, transformer
from benchmarks.lines.outcome import EPOCHS, STEPS, Cached
from benchmarks.timing import Ratio

SIZES = {"real": (256, 16, 64), "small": (32, 4, 16)}
TX = optax.adamw(1e-4)


def forward(params: Any, x: Array) -> Array:
    """The output of the last layer."""
    for layer in params["layers"]:
        x = x + attention(layer, normalised(x, layer["norm1"]))
        x = x + jax.nn.gelu(normalised(x, layer["norm2"]) @ layer["up"]) @ layer["down"]
    return x


def step_of(predict: Callable[..., Array], rest: Any) -> Callable[..., Any]:
    """A training step, compiled; the frozen part is beside the part that trains."""

    @jax.jit
    def step(trained: Any, state: Any, rest: Any, inputs: tuple[Array, ...], labels: Array) -> Any:
        def loss(trained: Any) -> Array:
            return jnp.mean((predict(fj.join(trained, rest), *inputs) - labels[:, None, None]) ** 2)

        value, gradient = jax.value_and_grad(loss)(trained)
        updates, state = TX.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, value

    return lambda trained, state, inputs, labels: step(trained, state, rest, inputs, labels)


def epochs(step: Callable[..., Any], trained: Any, batches: Callable[[], Any]) -> Callable[[], tuple[float, float]]:
    """One more epoch at each call: its seconds, loading included, and its first loss."""
    held = [trained, TX.init(trained)]

    def epoch() -> tuple[float, float]:
        begin, losses = time.process_time(), []
        for inputs, labels in batches():
            held[0], held[1], loss = step(held[0], held[1], inputs, labels)
            losses.append(float(loss))
        jax.block_until_ready(held)
        return time.process_time() - begin, losses[0]

    return epoch


def measure(size: str, rounds: int) -> Cached:
    """Trains both ways, an epoch each in turn."""
    width, batch, length = SIZES[size]
    params, _, x = transformer(width, batch, length)
    params = fj.freeze(params, "layers[:9]")
    dice = np.random.default_rng(0)
    inputs = dice.standard_normal((STEPS * batch, length, width), np.float32)
    labels = dice.standard_normal(len(inputs), np.float32)
    dataset = list(zip(inputs, labels, strict=True))
    trained, rest = fj.split(params)
    line = fj.frostline(forward, params, x)
    parts = [range(start, start + batch) for start in range(0, len(inputs), batch)]
    with tempfile.TemporaryDirectory() as folder:
        cache = fj.FeatureCache(folder, line)
        line.computed(inputs[:batch])  # compiled once, as the live step is before it is timed
        begin = time.process_time()
        cache.fill(dataset, batch_size=batch, progress=False)
        filled = time.process_time() - begin
        source = cache.dataset(dataset)
        live = epochs(step_of(forward, rest), trained, lambda: [((inputs[p],), labels[p]) for p in parts])
        cached = epochs(step_of(line.above, rest), trained, lambda: map(source.batch, parts))
        first = [live()[1], cached()[1]]
        seconds = [(live()[0], cached()[0]) for _ in range(rounds)]
    lives, cacheds = zip(*seconds, strict=True)
    total = (filled + EPOCHS * median(cacheds)) / (EPOCHS * median(lives))
    step_ms = 1000 * median(lives) / STEPS
    same = abs(first[0] - first[1]) <= 1e-6 * abs(first[0])
    title = "JAX: transformer, three of twelve layers trained"
    return Cached(title, step_ms, Ratio.of(cacheds, lives), filled / median(lives), total, same)
