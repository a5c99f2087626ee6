"""A line and a dataset for feature caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

import frostline.jax as fj
from only_jax.line.lined import weights

SAMPLES = 23
_INPUTS = np.random.default_rng(2).normal(size=(SAMPLES, 4)).astype(np.float32)
DATASET = [(_INPUTS[number], {"label": number % 3, "box": np.arange(2) + number}) for number in range(SAMPLES)]
TREE = fj.freeze(weights("a", "b"), "a")


def net(params: Any, x: Array) -> Array:
    return jnp.tanh(x @ params["a"]) @ params["b"]


def drawn(tree: Any = TREE) -> fj.FrostLine:
    return fj.frostline(net, tree, jnp.ones((2, 4)))


LINE = drawn()
BELOW = np.asarray(LINE.computed(_INPUTS)[0])


def filled(folder: Path, *, dataset: Any = DATASET, **settings: Any) -> fj.FeatureCache:
    cache = fj.FeatureCache(folder / "features", LINE, **settings)
    cache.fill(dataset, batch_size=8)
    return cache


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "features").glob("*"))}


class Noisy:
    """Samples that change each time they are read."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(3)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.random.normal(size=4).astype(np.float32), index


Act = Callable[[Path], object]
