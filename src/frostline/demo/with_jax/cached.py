"""A head that learns from what its frozen trunk said once, in JAX."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, final

import jax
import numpy as np
import optax

import frostline.jax as fj
from frostline.demo.scans import Numbers, Scans


class Learning(Protocol):
    """Who learns: what a step replaces."""

    network: Any
    state: Any


@final
class Cached:
    """What is above the line learns; what is below it was computed once.

    Attributes:
        seconds: what each step took, reading included, without the compiler.
        nbytes: what is stored for all scans, in bytes.
    """

    def __init__(
        self, learner: Learning, line: fj.Line, optimizer: optax.GradientTransformation, scans: Scans, folder: Path
    ) -> None:
        labelled = list(zip(scans.images, scans.labels.astype(np.int32), strict=True))
        cache = fj.FeatureCache(folder, line)
        cache.fill(labelled, batch_size=len(scans), progress=False)
        self.seconds: list[float] = []
        self.nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self._learner, self._data, self._step = learner, cache.dataset(labelled), _compiled(line, optimizer)
        self._is_compiled = False

    def step(self, places: Numbers) -> None:
        """Takes one step on the scans at these places."""
        learner = self._learner
        if not self._is_compiled:
            # A step changes nothing that it is given, so one may be taken and dropped, to have it compiled.
            jax.block_until_ready(self._step(learner.network, learner.state, *self._data.batch(places.tolist())))
            self._is_compiled = True
        start = time.perf_counter()
        stepped = self._step(learner.network, learner.state, *self._data.batch(places.tolist()))
        trained, learner.state = jax.block_until_ready(stepped)
        learner.network = fj.join(trained, fj.split(learner.network)[1])
        self.seconds.append(time.perf_counter() - start)


def _compiled(line: fj.Line, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """What trains, and the state of the optimizer, after one step from features."""

    def loss(network: Any, features: Any, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(line.above(network, *features), labels).mean()

    @jax.jit
    def step(network: Any, state: Any, features: Any, labels: jax.Array) -> tuple[Any, Any]:
        gradient = fj.grad(loss)(network, features, labels)
        updates, state = optimizer.update(gradient, state, network)
        return optax.apply_updates(fj.split(network)[0], updates), state

    return step
