"""A network with its optimizer, and the routine that trains it: the same for every way, and blind to what is frozen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Literal

import frostline.jax as fj
from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline.demo.framework import Scores
from frostline.demo.scans import Scans
from frostline.demo.with_jax.cached import Cached
from frostline.demo.with_jax.network import Linear, Network, Statistics, new_network


@final
class Learner:
    """Trains a network.

    Attributes:
        network: what learns.
        statistics: what its batch norm has seen.
        state: of the optimizer: AdamW with weight decay, which is handed the whole network.
        seconds: what each step took, without the compiler.
    """

    def __init__(self, network: Network, statistics: tuple[Statistics, ...], lr: float) -> None:
        self.network, self.statistics, self._lr = network, statistics, lr
        self.state: Any = _optimizer(lr).init(network)
        self.seconds: list[float] = []
        self._compiled: set[int] = set()

    @property
    def head(self) -> Linear:
        """Its head."""
        return self.network.head

    def onto(self, head: Linear) -> Learner:
        """One with this trunk, another head, and a new optimizer; nothing is copied, as nothing is written to."""
        return Learner(replace(self.network, head=head), self.statistics, self._lr)

    def freeze(self) -> None:
        """Freezes the trunk, with its parameters and its mode, and so its statistics."""
        self._begin(fj.freeze(self.network, "trunk"))

    def freeze_by_hand(self) -> None:
        """Freezes the trunk with ``stop_gradient`` and nothing else."""
        self._begin(replace(self.network, trunk=replace(self.network.trunk, is_stopped=True)))

    @contextmanager
    def guarded(self) -> Iterator[frozenset[str]]:
        """Proves on exit that the trunk and its statistics are bitwise what they were, whoever froze them."""
        with fj.guard(self._trunk()) as watching:
            yield watching.paths
            watching.verify(self._trunk())

    def step(self, batch: Scans) -> None:
        """Takes one step, and its time."""
        scans = _arrays(batch)
        if len(batch) not in self._compiled:
            # A step changes nothing that it is given, so one may be taken and dropped, to have it compiled.
            jax.block_until_ready(_step(self.network, self.statistics, self.state, *scans, lr=self._lr))
            self._compiled.add(len(batch))
        start = time.perf_counter()
        stepped = _step(self.network, self.statistics, self.state, *scans, lr=self._lr)
        trained, self.statistics, self.state = jax.block_until_ready(stepped)
        self.network = fj.join(trained, fj.split(self.network)[1])
        self.seconds.append(time.perf_counter() - start)

    def scores(self, scans: Scans, *, head: Linear | None = None) -> Scores:
        """What it says in evaluation mode, with its own head or with another one on its trunk, shape `(n, 5)`."""
        network = fj.strip(self.network)
        return np.asarray(_scores(network.trunk, head or network.head, self.statistics, scans.images))

    def report(self) -> Report:
        """What is frozen, and what the optimizer keeps."""
        return fj.report(self.network, self.state)

    def trainable_params(self) -> int:
        """How many numbers the training moves."""
        return sum(array.size for array in fj.trainable(self.network).values())

    def optimizer_bytes(self) -> int:
        """The size of what the optimizer keeps."""
        return sum(array.nbytes for array in jax.tree.leaves(self.state))

    def saved_bytes(self, batch: Scans) -> int:
        """The size of what one forward pass keeps for the backward pass, not counting the network itself.

        These are the arrays in the function that ``jax.vjp`` returns, each once, read from its trace: nothing is run.
        A compiled step may compute some of them again instead, and needs room for what is in between.
        """
        own = (*fj.split(self.network), self.statistics)
        trace = jax.make_jaxpr(_backward)(own, _arrays(batch)).jaxpr
        kept = {out for out in trace.outvars if not isinstance(out, Literal)}
        kept -= set(trace.invars[: len(jax.tree.leaves(own))])
        return sum(array.aval.size * array.aval.dtype.itemsize for array in kept)

    def cost(self, batch: Scans) -> Cost:
        """The account of one step."""
        return fj.cost(self._lost, self.network, *_arrays(batch), tx=_optimizer(self._lr))

    def cached(self, scans: Scans, folder: Path) -> Cached:
        """Has the trunk look at some scans once, and stores what it says."""
        line = fj.frostline(self._said, self.network, _arrays(scans)[0][:2])
        return Cached(self, line, _optimizer(self._lr), scans, folder)

    def head_values(self) -> Scores:
        """All numbers of the head, in a row."""
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(self.head)])

    def _lost(self, network: Network, images: jax.Array, labels: jax.Array) -> jax.Array:
        return _loss(network, self.statistics, images, labels)[0]

    def _said(self, network: Network, images: jax.Array) -> jax.Array:
        return network.head(network.trunk(images, self.statistics)[0])

    def _begin(self, network: Network) -> None:
        self.network, self.state = network, _optimizer(self._lr).init(network)

    def _trunk(self) -> Any:
        return fj.freeze({"trunk": fj.strip(self.network).trunk, "trunk_statistics": self.statistics})


def beginner(seed: int, lr: float) -> Learner:
    """A learner that knows nothing yet."""
    return Learner(*new_network(seed), lr)


@contextmanager
def alone() -> Iterator[None]:
    """On the processor, whatever else there is."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def _optimizer(lr: float) -> optax.GradientTransformation:
    return fj.optimizer(optax.adamw(lr, weight_decay=0.05))


@partial(jax.jit, static_argnames="lr")
def _step(
    network: Network, statistics: tuple[Statistics, ...], state: Any, images: jax.Array, labels: jax.Array, *, lr: float
) -> tuple[Network, tuple[Statistics, ...], Any]:
    """What trains, the statistics and the state of the optimizer after one step."""
    (_, statistics), gradient = fj.value_and_grad(_loss, has_aux=True)(network, statistics, images, labels)
    updates, state = _optimizer(lr).update(gradient, state, network)
    return optax.apply_updates(fj.split(network)[0], updates), statistics, state


@jax.jit
def _scores(trunk: Any, head: Linear, statistics: tuple[Statistics, ...], images: jax.Array) -> jax.Array:
    # A frozen use is in evaluation mode.
    return head(fj.Frozen(trunk)(images, statistics)[0])


def _loss(
    network: Network, statistics: tuple[Statistics, ...], images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, tuple[Statistics, ...]]:
    features, statistics = network.trunk(images, statistics)
    losses = optax.softmax_cross_entropy_with_integer_labels(network.head(features), labels)
    return losses.mean(), statistics


def _backward(own: Any, scans: tuple[jax.Array, jax.Array]) -> Any:
    trained, rest, statistics = own

    def loss(trained: Network) -> tuple[jax.Array, Any]:
        return _loss(fj.join(trained, rest), statistics, *scans)

    return jax.vjp(loss, trained, has_aux=True)[1]


def _arrays(scans: Scans) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(scans.images), jnp.asarray(scans.labels.astype(np.int32))
