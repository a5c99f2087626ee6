"""Fine-tuning in Flax NNX: learn the digits 0 to 4, freeze the trunk, learn 5 to 9 by the same routine."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

from frostline.integrations.nnx import freeze, guard, trainable


class Trunk(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear = nnx.Linear(64, 32, rngs=rngs)
        self.norm = nnx.BatchNorm(32, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(nnx.relu(self.norm(self.linear(x))))


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.trunk, self.head = Trunk(rngs), nnx.Linear(32, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.trunk(x))


def train(model: Net, x: jax.Array, y: jax.Array, steps: int) -> int:
    """Trains what is trainable; returns the bytes that the optimizer keeps for it."""
    model.train()
    flt, optimizer = trainable(model), optax.adamw(0.01, weight_decay=0.01)
    structure, trained, rest = nnx.split(model, flt, ...)
    moments = optimizer.init(trained)

    @jax.jit
    def step(trained: Any, rest: Any, moments: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any, Any]:
        def loss(trained: Any) -> tuple[jax.Array, Any]:
            model = nnx.merge(structure, trained, rest, copy=True)
            value = optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()
            return value, nnx.split(model, flt, ...)[2]

        gradient, rest = jax.grad(loss, has_aux=True)(trained)
        updates, moments = optimizer.update(gradient, moments, trained)
        return optax.apply_updates(trained, updates), rest, moments

    for _ in range(steps):
        trained, rest, moments = step(trained, rest, moments, x, y)
    nnx.update(model, trained, rest)
    return sum(leaf.nbytes for leaf in jax.tree.leaves((moments[0].mu, moments[0].nu)))


def accuracy(model: Net, x: jax.Array, y: jax.Array) -> float:
    model.eval()
    return float((model(x).argmax(-1) == y).mean())


def main() -> dict[str, Any]:
    x, y = load_digits(return_X_y=True)
    (x1, y1), (x2, y2) = ((jnp.asarray(x[part] / 16), jnp.asarray(y[part] % 5)) for part in (y < 5, y >= 5))
    model = Net(nnx.Rngs(0))
    train(model, x1, y1, steps=60)
    freeze(model, "trunk").head = nnx.Linear(32, 5, rngs=nnx.Rngs(1))
    before = accuracy(model, x2, y2)
    with guard(model) as watching:
        nbytes = train(model, x2, y2, steps=100)
    after = accuracy(model, x2, y2)
    print(f"Accuracy on 5 to 9: {before:.0%} with a new head, {after:.0%} after training it alone.")
    print(f"Bitwise what they were: {', '.join(sorted(watching.paths))}.")
    return {"before": before, "after": after, "still": watching.paths, "optimizer bytes": nbytes}


if __name__ == "__main__":
    main()
