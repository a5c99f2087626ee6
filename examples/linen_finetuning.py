"""Fine-tuning in Flax linen: a frozen encoder, put into the model where it is constructed.

The model with the frozen use has the variables of the model without it, so what was trained loads as it is; the
training routine, `train`, is one and the same, and knows nothing of the architecture.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import serialization
from sklearn.datasets import load_digits

import frostline.jax as fj
from frostline.integrations.linen import Frozen


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(32)(x))
        return nn.Dropout(0.1, deterministic=not train)(nn.relu(x))


class Net(nn.Module):
    encoder: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nn.Dense(10, name="head")(self.encoder(x, train=train))


def train(model: Net, variables: Any, images: jax.Array, labels: jax.Array, *, steps: int) -> Any:
    def loss(params: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array) -> Any:
        given = {"params": params, "batch_stats": stats}
        out, new = model.apply(given, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).mean(), new["batch_stats"]

    params, stats = variables["params"], variables["batch_stats"]
    # What no gradient can reach is frozen, or weight decay would move it.
    plan = fj.audit(loss, params, stats, images, labels, jax.random.key(0), has_aux=True).plan
    trained, rest = fj.split(params, frozen=plan)
    tx = optax.adamw(1e-2, weight_decay=1e-2)

    @jax.jit
    def step(trained: Any, rest: Any, state: Any, stats: Any, *batch: jax.Array) -> Any:
        def of_trained(trained: Any) -> Any:
            return loss(fj.join(trained, rest), stats, *batch)

        gradient, stats = jax.grad(of_trained, has_aux=True)(trained)
        updates, state = tx.update(gradient, state, trained)
        return optax.apply_updates(trained, updates), state, stats

    state = tx.init(trained)
    for key in jax.random.split(jax.random.key(1), steps):
        trained, state, stats = step(trained, rest, state, stats, images, labels, key)
    return {"params": fj.join(trained, rest), "batch_stats": stats}


def main() -> dict[str, Any]:
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    low = labels < 5
    model = Net(Encoder())
    start = model.init(jax.random.key(0), images, train=False)
    pretrained = train(model, start, images[low], labels[low], steps=60)
    model = Net(Frozen(Encoder()))
    loaded = serialization.from_bytes(start, serialization.to_bytes(pretrained))
    tuned = train(model, loaded, images, labels, steps=60)
    right = [(model.apply(v, images, train=False).argmax(1) == labels).mean().item() for v in (pretrained, tuned)]
    still = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), *jax.device_get((pretrained, tuned)))
    return {"accuracy before": right[0], "accuracy after": right[1], "still": still}


if __name__ == "__main__":
    print(main())
