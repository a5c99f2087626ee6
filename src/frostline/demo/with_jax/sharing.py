"""One layer, trained by one model and constant in another, in JAX."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import frostline.jax as fj
from frostline.demo.scans import Scans
from frostline.demo.sharing import Gradients, Sharing
from frostline.demo.with_jax.network import new_linear


def share(scans: Scans) -> Sharing:
    """Builds both models, takes a step of each on some scans, and looks at the layer.

    Example:
        >>> from frostline.demo.scans import NEW, one_of_each
        >>> shared = share(one_of_each(NEW))
        >>> shared.m1.weight, shared.changed_by_m1, shared.changed_by_m0
        (None, 0, 1024)
    """
    images, labels = jnp.asarray(scans.images.reshape(len(scans), -1)), jnp.asarray(scans.labels.astype(np.int32))
    dice = np.random.default_rng(0)
    l1, l2, l3 = (new_linear(dice, *widths) for widths in ((64, 32), (32, 32), (32, 5)))
    m0, m1 = (l1, l2, l3), (l1, fj.Frozen(l2), l3)
    ((_, used, _),) = _after_a_step((m1,), images, labels)
    # Both in one tree, in which thawing, of nothing, notes that their layers are the same.
    (_, trained, _), (_, seen, _) = _after_a_step(fj.thaw((m0, m1)), images, labels)
    hidden = l1(images)
    return Sharing(
        m0=_gradients(m0, hidden, labels),
        m1=_gradients(m1, hidden, labels),
        values=l2.weight.size,
        changed_by_m0=_changed(l2.weight, trained.weight),
        changed_by_m1=_changed(l2.weight, used.weight),
        seen_by_m1=float(np.abs(seen(hidden) - m1[1](hidden)).max()),
    )


def _loss(model: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
    for layer in model:
        x = layer(x)
    return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()


def _gradients(model: Any, hidden: jax.Array, labels: jax.Array) -> Gradients:
    """Those of the weight of the layer in the middle, and of what goes into it."""
    weight, start = _both(model[1:], hidden, labels)
    return Gradients(None if weight is None else _norm(weight), _norm(start))


@jax.jit
def _both(model: Any, hidden: jax.Array, labels: jax.Array) -> tuple[jax.Array | None, jax.Array]:
    to_model = fj.grad(_loss)(model, hidden, labels)
    return to_model[0].weight, jax.grad(_loss, argnums=1)(model, hidden, labels)


def _norm(array: jax.Array) -> float:
    return float(np.linalg.norm(array))


@jax.jit
def _after_a_step(models: Any, images: jax.Array, labels: jax.Array) -> Any:
    """The models, after a step of AdamW over all of them, by the loss of the first."""
    optimizer = fj.optimizer(optax.adamw(0.01, weight_decay=0.05))
    gradient = fj.grad(lambda models: _loss(models[0], images, labels))(models)
    updates, _ = optimizer.update(gradient, optimizer.init(models), models)
    trained, rest = fj.split(models)
    return fj.join(optax.apply_updates(trained, updates), rest)


def _changed(before: jax.Array, after: jax.Array) -> int:
    """How many values are not bitwise what they were."""
    return int((np.asarray(before).view(np.int32) != np.asarray(after).view(np.int32)).sum())
