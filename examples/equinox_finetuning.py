"""Fine-tuning in Equinox: a model pre-trained on some digits learns the others; first its head, then one layer more.

`train` is one and the same throughout and knows nothing of the architecture: what is frozen is part of the model.
Dropout in the frozen encoder is off, and its running statistics stay as they are.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from equinox import nn
from sklearn.datasets import load_digits

import frostline.jax as fj


def network(key: jax.Array) -> nn.Sequential:
    first, second, head = jax.random.split(key, 3)
    norm = nn.BatchNorm(32, axis_name="batch", mode="batch", momentum=0.9)
    low = nn.Sequential([nn.Linear(64, 32, key=first), norm, nn.Lambda(jax.nn.relu), nn.Dropout(0.1)])
    high = nn.Sequential([nn.Linear(32, 32, key=second), nn.Lambda(jax.nn.relu)])
    return nn.Sequential([nn.Sequential([low, high]), nn.Linear(32, 10, key=head)])


def outputs(model: Any, norms: Any, images: jax.Array, key: jax.Array) -> Any:
    keys = jax.random.split(key, len(images))
    call = jax.vmap(lambda x, norms, key: model(x, norms, key=key), (0, None, 0), (0, None), axis_name="batch")
    return call(images, norms, keys)


def train(model: Any, norms: Any, images: jax.Array, labels: jax.Array, *, steps: int) -> Any:
    def loss(model: Any, norms: Any, images: jax.Array, labels: jax.Array, key: jax.Array) -> Any:
        logits, norms = outputs(model, norms, images, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), norms

    tx = fj.optimizer(optax.adamw(1e-2, weight_decay=1e-2))

    @eqx.filter_jit
    def step(model: Any, state: Any, norms: Any, images: jax.Array, labels: jax.Array, key: jax.Array) -> Any:
        gradient, norms = fj.grad(loss, has_aux=True)(model, norms, images, labels, key)
        updates, state = tx.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state, norms

    state = tx.init(model)
    for key in jax.random.split(jax.random.key(1), steps):
        model, state, norms = step(model, state, norms, images, labels, key)
    return model, norms


def accuracy(model: Any, norms: Any, images: jax.Array, labels: jax.Array) -> float:
    logits, _ = outputs(nn.inference_mode(fj.strip(model)), norms, images, jax.random.key(0))
    return (logits.argmax(1) == labels).mean().item()


def main() -> dict[str, Any]:
    data = load_digits()
    images, labels = jnp.asarray(data.data / 16, jnp.float32), jnp.asarray(data.target)
    low = labels < 5
    model, norms = nn.make_with_state(network)(jax.random.key(0))
    pretrained, norms = train(model, norms, images[low], labels[low], steps=60)
    model = fj.freeze(pretrained, "layers[0]")
    head_tuned, after = train(model, norms, images, labels, steps=60)
    deeper_tuned, after = train(fj.thaw(head_tuned, "layers[0].layers[-1]"), after, images, labels, steps=60)
    models = {"pretrained": pretrained, "head": head_tuned, "one layer more": deeper_tuned}
    old, new = (fj.trainable(fj.strip(model)) for model in (pretrained, deeper_tuned))
    return {
        "accuracy": {name: accuracy(model, norms, images, labels) for name, model in models.items()},
        "moved": sorted(path for path in old if old[path].tobytes() != new[path].tobytes()),
        "statistics still": jax.tree.all(jax.tree.map(lambda a, b: (a == b).all().item(), norms, after)),
    }


if __name__ == "__main__":
    print(main())
