"""The ways to freeze that are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import optax
import paramax

import frostline.jax as fj
from benchmarks.in_jax.case import ALL, BASE, PLACES
from benchmarks.in_jax.models import Loss, Params

Merge = Callable[[Any, Any], Any]
Gradient = Callable[[Any, Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Training:
    """What a loop needs, frozen in one way.

    Attributes:
        moving: what the optimizer is given.
        fixed: what is beside it.
        merge: the parameters, of both.
        gradient: the loss and its gradient over `moving`, of `moving`, `fixed` and a batch.
        optimizer: what updates `moving`.
    """

    moving: Any
    fixed: Any
    merge: Merge
    gradient: Gradient
    optimizer: optax.GradientTransformation


@dataclass(frozen=True)
class Task:
    """What is to be trained, and what of it is to be frozen."""

    params: Params
    loss: Loss
    place: str

    @property
    def mask(self) -> Any:
        """True where it is frozen."""
        frozen = range(len(self.params["layers"]))[PLACES[self.place]]
        return {"layers": [jax.tree.map(lambda _, n=n: n in frozen, p) for n, p in enumerate(self.params["layers"])]}

    @property
    def selector(self) -> str:
        """The same, as a path."""
        layers = PLACES[self.place]
        return f"layers[{layers.start}:{layers.stop}]"


def adamw() -> optax.GradientTransformation:
    """The optimizer of all ways; it decays what it is given."""
    return optax.adamw(1e-4, weight_decay=0.1)


def by_jax(loss: Loss, merge: Merge) -> Gradient:
    """``jax.value_and_grad`` over what the optimizer is given."""

    def gradient(moving: Any, fixed: Any, batch: Any) -> tuple[Any, Any]:
        return jax.value_and_grad(lambda moving: loss(merge(moving, fixed), batch))(moving)

    return gradient


def all_of_it(moving: Any, _: Any) -> Any:
    """Everything goes to the optimizer."""
    return moving


def over_all(task: Task, tx: optax.GradientTransformation) -> Training:
    """All parameters are differentiated, and go to the optimizer."""
    return Training(task.params, None, all_of_it, by_jax(task.loss, all_of_it), tx)


def train_all(task: Task) -> Training:
    """Nothing is frozen."""
    return over_all(task, adamw())


def freeze_last(task: Task) -> Training:
    """The updates of frozen parameters become zeros."""
    return over_all(task, optax.chain(adamw(), optax.freeze(task.mask)))


def freeze_first(task: Task) -> Training:
    """The gradients of frozen parameters become zeros."""
    return over_all(task, optax.chain(optax.freeze(task.mask), adamw()))


def partition(task: Task) -> Training:
    """Frozen parameters have another optimizer, that does nothing."""
    labels = jax.tree.map(lambda frozen: "frozen" if frozen else "trained", task.mask)
    return over_all(task, optax.partition({"trained": adamw(), "frozen": optax.set_to_zero()}, labels))


def marked_by_paramax(task: Task) -> Any:
    """The parameters with every frozen one in a wrapper."""
    layers = list(task.params["layers"])
    layers[PLACES[task.place]] = paramax.non_trainable(layers[PLACES[task.place]])
    return {"layers": layers}


def paramax_to_all(task: Task) -> Training:
    """``paramax.non_trainable``, and the optimizer gets everything."""

    def merge(moving: Any, _: Any) -> Any:
        return paramax.unwrap(moving)

    return Training(marked_by_paramax(task), None, merge, by_jax(task.loss, merge), adamw())


def paramax_in_parts(task: Task) -> Training:
    """``paramax.non_trainable``, and what is in its wrappers is parted off by hand, as its documentation says."""
    is_frozen = {"is_leaf": lambda node: isinstance(node, paramax.NonTrainable)}
    moving, fixed = eqx.partition(marked_by_paramax(task), eqx.is_inexact_array, **is_frozen)

    def merge(moving: Any, fixed: Any) -> Any:
        return paramax.unwrap(eqx.combine(moving, fixed, **is_frozen))

    return Training(moving, fixed, merge, by_jax(task.loss, merge), adamw())


def by_hand(task: Task) -> Training:
    """What an experienced user of Equinox writes."""
    fixed, moving = eqx.partition(task.params, task.mask)
    return Training(moving, fixed, eqx.combine, by_jax(task.loss, eqx.combine), adamw())


def our_gradient(task: Task) -> Training:
    """``fj.freeze`` and ``fj.value_and_grad``; the optimizer gets the part that trains."""
    moving, fixed = fj.split(fj.freeze(task.params, task.selector))

    def gradient(moving: Any, fixed: Any, batch: Any) -> tuple[Any, Any]:
        return fj.value_and_grad(task.loss)(fj.join(moving, fixed), batch)

    return Training(moving, fixed, fj.join, gradient, adamw())


def our_optimizer(task: Task) -> Training:
    """``fj.freeze``, a loop that differentiates and hands over everything, and ``fj.optimizer``."""
    frozen = fj.freeze(task.params, task.selector)
    return Training(frozen, None, all_of_it, by_jax(task.loss, all_of_it), fj.optimizer(adamw()))


WAYS: dict[str, Callable[[Task], Training]] = {
    ALL: train_all,
    "chain(adamw, optax.freeze)": freeze_last,
    "chain(optax.freeze, adamw)": freeze_first,
    "optax.partition": partition,
    "paramax.non_trainable": paramax_to_all,
    "paramax, partition by hand": paramax_in_parts,
    BASE: by_hand,
    "fj.value_and_grad": our_gradient,
    "fj.optimizer": our_optimizer,
}
