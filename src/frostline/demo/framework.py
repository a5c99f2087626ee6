"""What the demo asks of a framework: all that is written once for each of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, assert_never

import numpy as np
from numpy.typing import NDArray

from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline.demo.scans import Numbers, Scans
from frostline.demo.sharing import Sharing
from frostline.demo.words import Words

Name = Literal["torch", "jax"]
Scores = NDArray[np.float32]


class Cached(Protocol):
    """The head of a learner, which learns from what its frozen trunk said once."""

    @property
    def seconds(self) -> list[float]:
        """What each step took, reading included."""

    @property
    def nbytes(self) -> int:
        """What is stored for all scans, in bytes."""

    def step(self, places: Numbers) -> None:
        """Takes one step on the scans at these places."""


class Learner(Protocol):
    """A network with its optimizer, and the routine that trains it, blind to what is frozen.

    The optimizer is AdamW with weight decay, and is handed *all* parameters: keeping the frozen ones still is not
    the business of the routine.
    """

    @property
    def seconds(self) -> list[float]:
        """What each step took."""

    @property
    def head(self) -> Any:
        """Its head, for the trunk of another one."""

    def onto(self, head: Any) -> Learner:
        """One with a copy of this trunk, a copy of another head, and a new optimizer."""

    def freeze(self) -> None:
        """Freezes the trunk."""

    def freeze_by_hand(self) -> None:
        """Freezes the trunk as it is commonly done without frostline."""

    def guarded(self) -> AbstractContextManager[frozenset[str]]:
        """Proves on exit that the trunk is bitwise what it was; gives the names that are watched."""

    def step(self, batch: Scans) -> None:
        """Takes one step, and its time."""

    def scores(self, scans: Scans, *, head: Any = None) -> Scores:
        """What it says in evaluation mode, with its own head or with another one on its trunk, shape `(n, 5)`."""

    def report(self) -> Report:
        """What is frozen, and what the optimizer keeps."""

    def trainable_params(self) -> int:
        """How many numbers the training moves."""

    def optimizer_bytes(self) -> int:
        """The size of what the optimizer keeps."""

    def saved_bytes(self, batch: Scans) -> int:
        """The size of what one forward pass keeps for the backward pass, not counting the network itself."""

    def cost(self, batch: Scans) -> Cost:
        """The account of one step."""

    def cached(self, scans: Scans, folder: Path) -> Cached:
        """Has the trunk look at some scans once, and stores what it says."""

    def head_values(self) -> Scores:
        """All numbers of the head, in a row."""


class Framework(Protocol):
    """A framework; each is a package of this name's functions, imported when it is asked for, and never with another.

    The same seed gives the same numbers.
    """

    WORDS: Words

    def alone(self) -> AbstractContextManager[None]:
        """The process as the demo needs it, and afterwards as it was."""

    def beginner(self, seed: int, lr: float) -> Learner:
        """A learner that knows nothing yet."""

    def new_head(self, seed: int) -> Any:
        """A head that knows nothing yet."""

    def share(self, scans: Scans) -> Sharing:
        """Builds the two models that share a layer, takes a step of each on some scans, and looks at the layer."""


def framework_of(name: Name) -> Framework:
    """A framework by its name.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    match name:
        case "torch":
            from frostline.demo import with_torch

            return with_torch
        case "jax":
            from frostline.demo import with_jax

            return with_jax
    assert_never(name)


def accuracy(scores: Scores, scans: Scans) -> float:
    """The share of scans whose digit has the highest score."""
    return float((scores.argmax(1) == scans.labels).mean())


def reads(learner: Learner, scans: Scans, *, head: Any = None) -> float:
    """The share of scans that a learner reads right."""
    return accuracy(learner.scores(scans, head=head), scans)
