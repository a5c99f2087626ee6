"""Fine-tuning in Haiku: the encoder of a network that is there already is frozen by name.

Parameters and state are plain dicts before and after; `held` keeps the encoder in evaluation mode and its statistics
still, whatever the training routine says.
"""

from __future__ import annotations

from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import frostline.jax as fj
from frostline import Plan
from frostline.integrations.haiku import held


class Encoder(hk.Module):
    def __call__(self, x: jax.Array, *, is_training: bool) -> jax.Array:
        x = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(hk.Linear(32)(x), is_training)
        return jax.nn.relu(x)


def forward(x: jax.Array, *, is_training: bool) -> jax.Array:
    return hk.Linear(10, name="head")(Encoder()(x, is_training=is_training))


NET = hk.without_apply_rng(hk.transform_with_state(forward))


def train(params: Any, stats: Any, plan: Plan, images: jax.Array, labels: jax.Array, *, steps: int) -> tuple[Any, Any]:
    net = held(NET, plan)
    trained, rest = fj.split(params, frozen=plan)
    tx = optax.adamw(1e-2, weight_decay=1e-2)

    @jax.jit
    def step(trained: Any, rest: Any, state: Any, stats: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss(trained: Any) -> Any:
            out, new = net.apply(fj.join(trained, rest), stats, images, is_training=True)
            return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean(), new

        gradient, stats = jax.grad(loss, has_aux=True)(trained)
        updates, state = tx.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, stats

    state = tx.init(trained)
    for _ in range(steps):
        trained, state, stats = step(trained, rest, state, stats, images, labels)
    return fj.join(trained, rest), stats


def main() -> dict[str, Any]:
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    low = labels < 5
    params, stats = NET.init(jax.random.key(0), images, is_training=True)
    pretrained = train(params, stats, fj.plan(params), images[low], labels[low], steps=60)
    tuned = train(*pretrained, fj.plan(params, "encoder/*"), images, labels, steps=60)
    right = [
        (NET.apply(*weights, images, is_training=False)[0].argmax(1) == labels).mean().item()
        for weights in (pretrained, tuned)
    ]
    still = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), *jax.device_get((pretrained, tuned)))
    return {"accuracy before": right[0], "accuracy after": right[1], "still": still}


if __name__ == "__main__":
    print(main())
