"""What the demo asks of a framework. `in_torch` and `in_jax` answer, and never need each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline.demo.data import Images, Indices

WIDTHS = ((1, 16), (16, 32), (32, 32))
"""Channels before and after each block of the trunk: convolution, batch norm, ReLU and, but for the first, pooling."""
FEATURES = 128

Scores = NDArray[np.float32]


class Learner(Protocol):
    """A network, its optimizer, and a training step that knows nothing of freezing.

    The network is a trunk and a head. The optimizer is AdamW with weight decay, and gets all parameters: nothing but
    the freezing keeps frozen ones as they are.
    """

    @property
    def head(self) -> Any:
        """The head."""

    def with_new_head(self, seed: int) -> Learner:
        """A learner with a copy of this trunk, an untrained head, and a new optimizer."""

    def freeze(self) -> None:
        """Freezes the trunk."""

    def freeze_by_hand(self) -> None:
        """Freezes the trunk as it is commonly done without frostline."""

    def guarded(self) -> AbstractContextManager[Any]:
        """A guard, which proves on exit that no byte of the trunk moved, its running statistics included."""

    def step(self, batch: Images) -> None:
        """Takes one training step."""

    def scores(self, images: Images, head: Any = None) -> Scores:
        """The scores of the five digits in evaluation mode, shape `(n, 5)`; with another head if one is given."""

    def report(self) -> Report:
        """What is frozen, and what the optimizer keeps."""

    def cost(self, batch: Images) -> Cost:
        """The account of one step."""

    def cached(self, images: Images, folder: Path) -> Callable[[Indices], None]:
        """Stores the trunk's features of some images, and returns a step of the head on those at some indices."""

    def accuracy(self, images: Images, head: Any = None) -> float:
        """The share of images whose digit has the highest score."""
        return float((self.scores(images, head).argmax(1) == images.labels).mean())


@final
@dataclass(frozen=True)
class SharedLayer:
    """A layer `l2` that is trained in `m0 = l1, l2, l3` and constant in `m1 = l1, Frozen(l2), l3`; pairs are of both.

    Attributes:
        weight_gradients: the norms of the gradients of the layer's weight; None where there is none.
        input_gradients: the norms of the gradients of the layer's input.
        changed: how many values of the weight a training step changes.
        values: how many values there are.
        output_change: how far a step of `m0` moves the output of the frozen use, at most.
    """

    weight_gradients: tuple[float | None, float | None]
    input_gradients: tuple[float, float]
    changed: tuple[int, int]
    values: int
    output_change: float


@final
@dataclass(frozen=True)
class Framework:
    """One framework.

    Attributes:
        package: of frostline, "torch" or "jax".
        by_hand: how a trunk is commonly frozen without frostline, as code.
        repeatable: a context in which the same work gives the same bytes.
        new_learner: makes an untrained learner from a seed and a learning rate.
        share_a_layer: trains two models that share a layer.
    """

    name: str
    package: str
    by_hand: str
    repeatable: Callable[[], AbstractContextManager[Any]]
    new_learner: Callable[[int, float], Learner]
    share_a_layer: Callable[[Images], SharedLayer]
