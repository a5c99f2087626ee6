"""JAX: a small decoder, trained in every way."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jax import Array

import frostline.jax as fj
from benchmarks.schedules.case import Case
from benchmarks.schedules.setup import DECAY, RATE, Held, Moments, Setup
from benchmarks.schedules.side_by_side import Trainee, measured

HEADS = 4


def decoder(setup: Setup) -> Any:
    """``embed``, ``layers`` and ``head``, with the same shapes as in PyTorch; nothing is tied."""
    d, keys = setup.width, iter(jax.random.split(jax.random.key(0), 3 + 4 * setup.layers))

    def dense(before: int, after: int) -> dict[str, Array]:
        return {"w": jax.random.normal(next(keys), (before, after)) / before**0.5, "b": jnp.zeros(after)}

    def norm() -> dict[str, Array]:
        return {"scale": jnp.ones(d), "shift": jnp.zeros(d)}

    def layer() -> dict[str, Any]:
        shapes = {"qkv": (d, 3 * d), "out": (d, d), "up": (d, 4 * d), "down": (4 * d, d)}
        return {"norm1": norm(), "norm2": norm()} | {name: dense(*shape) for name, shape in shapes.items()}

    words, places = (jax.random.normal(next(keys), (count, d)) for count in (setup.vocabulary, setup.length))
    return {
        "embed": {"words": words, "places": places},
        "layers": [layer() for _ in range(setup.layers)],
        "head": {"norm": norm(), "w": dense(d, setup.vocabulary)["w"]},
    }


def loss_of(params: Any, text: Array) -> Array:
    """The loss of predicting each word from those before it."""
    x = params["embed"]["words"][text[:, :-1]] + params["embed"]["places"]
    for layer in params["layers"]:
        x = x + attention(layer, normalised(layer["norm1"], x))
        x = x + applied(layer["down"], jax.nn.gelu(applied(layer["up"], normalised(layer["norm2"], x))))
    predicted = normalised(params["head"]["norm"], x) @ params["head"]["w"]
    return optax.softmax_cross_entropy_with_integer_labels(predicted, text[:, 1:]).mean()


def attention(layer: Any, x: Array) -> Array:
    """Of each word to those before it."""
    batch, length, width = x.shape
    parts = jnp.split(applied(layer["qkv"], x), 3, axis=-1)
    q, k, v = (part.reshape(batch, length, HEADS, -1) for part in parts)
    seen = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return applied(layer["out"], seen.reshape(batch, length, width))


def applied(dense: Any, x: Array) -> Array:
    """A linear layer."""
    return x @ dense["w"] + dense["b"]


def normalised(norm: Any, x: Array) -> Array:
    """Layer normalisation."""
    return jax.nn.standardize(x, epsilon=1e-5) * norm["scale"] + norm["shift"]


class JaxTrainee(Trainee):
    """With AdamW; where there is a schedule, as `fj.optimizer`, and driven. Compiled it would be once for each set.

    So it is trained without, which is slow, and not timed; what a compiled step would need is asked of the compiler.
    """

    has_times, has_gradients_beside = False, False
    _needed: ClassVar[dict[frozenset[str], tuple[int, float]]] = {}

    def begin(self, start: Any, moments: Moments) -> None:
        self.params = start
        self.tx: Any = optax.adamw(RATE, weight_decay=DECAY)
        self.driver: fj.Driver | None = None
        if self.schedule is not None:
            self.tx, self.driver = fj.optimizer(self.tx, moments=moments), fj.Driver(self.schedule)
            self.params = self.driver.start(self.params)
        self.state = self.tx.init(self.params)

    def step(self, text: list[list[int]]) -> None:
        batch, record = jnp.array(text), self.record
        temporary, flops = self._asked(batch)
        self.params, self.state, loss, gradients = self._trained(self.params, self.state, batch)
        record.losses.append(float(loss))
        record.held.append(Held(*self._moments(), nbytes(gradients)))
        record.saved.append(temporary)
        record.flops.append(flops)
        if self.driver is not None:
            self.params = self.driver.step(self.params)

    def _trained(self, params: Any, state: Any, batch: Array) -> Any:
        loss, gradients = (fj if self.driver else jax).value_and_grad(loss_of)(params, batch)
        updates, state = self.tx.update(gradients, state, params)
        if self.driver is None:
            return optax.apply_updates(params, updates), state, loss, gradients
        moving, rest = fj.split(params)
        return fj.join(optax.apply_updates(moving, updates), rest), state, loss, gradients

    def _moments(self) -> tuple[int, int]:
        """Of what trains, and of what is frozen."""
        if self.driver is None:
            return nbytes(self.state), 0
        return nbytes(self.state.inner), nbytes(self.state.parked)

    def _asked(self, batch: Array) -> tuple[int, float]:
        """Temporary bytes and FLOPs of a compiled step in which the same trains, and did before."""
        now = frozenset(fj.trainable(self.params))
        if now not in self._needed:
            step = jax.jit(lambda *given: self._trained(*given)[:3], donate_argnums=(0, 1))
            compiled = step.lower(self.params, self.tx.init(self.params), batch).compile()
            memory: Any = compiled.memory_analysis()
            cost: Any = compiled.cost_analysis()
            self._needed[now] = memory.temp_size_in_bytes, cost["flops"]
        return self._needed[now]


def nbytes(tree: Any) -> int:
    """Of the arrays, counters left out."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if leaf.ndim)


def measure(setup: Setup) -> list[Case]:
    """Measures all ways."""
    return measured(setup, decoder, JaxTrainee)
