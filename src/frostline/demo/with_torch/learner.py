"""A network with its optimizer, and the routine that trains it: the same for every way, and blind to what is frozen."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from torch import nn

import frostline.torch as ft
from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline.demo.framework import Scores
from frostline.demo.scans import Scans
from frostline.demo.with_torch.cached import Cached
from frostline.demo.with_torch.network import Network, new_network
from frostline.torch._autograd.saved import saving


@final
class Learner:
    """Trains a network.

    Attributes:
        network: what learns.
        optimizer: AdamW with weight decay, over *all* parameters.
        seconds: what each step took.
    """

    def __init__(self, network: Network, lr: float) -> None:
        self.network = network.train()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
        self.seconds: list[float] = []
        self._lr = lr

    @property
    def head(self) -> nn.Linear:
        """Its head."""
        return self.network.head

    def onto(self, head: nn.Linear) -> Learner:
        """One with a copy of this trunk, a copy of another head, and a new optimizer."""
        network = copy.deepcopy(self.network)
        network.head = copy.deepcopy(head)
        return Learner(network, self._lr)

    def freeze(self) -> None:
        """Freezes the trunk, with its parameters, its mode and its buffers."""
        ft.freeze(self.network, "trunk")

    def freeze_by_hand(self) -> None:
        """Freezes the trunk with ``requires_grad_(False)`` and nothing else."""
        self.network.trunk.requires_grad_(False)

    @contextmanager
    def guarded(self) -> Iterator[frozenset[str]]:
        """Proves on exit that what is frozen is bitwise what it was."""
        with ft.guard(self.network) as watching:
            yield watching.paths

    def step(self, batch: Scans) -> None:
        """Takes one step, and its time."""
        images, labels = _tensors(batch)
        start = time.perf_counter()
        self.optimizer.zero_grad()
        _loss(self.network, images, labels).backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)

    def scores(self, scans: Scans, *, head: nn.Linear | None = None) -> Scores:
        """What it says in evaluation mode, with its own head or with another one on its trunk, shape `(n, 5)`."""
        self.network.eval()
        with torch.no_grad():
            scores: torch.Tensor = (head or self.network.head)(self.network.trunk(_tensors(scans)[0]))
        self.network.train()
        return scores.numpy()

    def report(self) -> Report:
        """What is frozen, and what the optimizer keeps."""
        return ft.report(self.network, self.optimizer)

    def trainable_params(self) -> int:
        """How many numbers the training moves."""
        return sum(parameter.numel() for parameter in ft.trainable(self.network).values())

    def optimizer_bytes(self) -> int:
        """The size of what the optimizer keeps."""
        states = self.optimizer.state.values()
        return sum(kept.nbytes for state in states for kept in state.values() if isinstance(kept, torch.Tensor))

    def saved_bytes(self, batch: Scans) -> int:
        """The size of what one forward pass keeps for the backward pass, not counting the network itself."""
        network = copy.deepcopy(self.network)  # a forward pass moves statistics
        images, labels = _tensors(batch)
        with saving(network) as saved:
            loss = _loss(network, images, labels)
        kept = saved.nbytes  # while the loss lives, and with it what it holds
        del loss
        return kept

    def cost(self, batch: Scans) -> Cost:
        """The account of one step."""
        images, labels = _tensors(batch)
        return ft.cost(
            self.network, images, loss=lambda scores: F.cross_entropy(scores, labels), optimizer=self.optimizer
        )

    def cached(self, scans: Scans, folder: Path) -> Cached:
        """Has the trunk look at some scans once, and stores what it says."""
        images, labels = _tensors(scans)
        line = ft.frostline(self.network, images[:2])
        with torch.random.fork_rng(devices=[]):  # a DataLoader draws a seed
            return Cached(line, torch.utils.data.TensorDataset(images, labels), self.optimizer, folder)

    def head_values(self) -> Scores:
        """All numbers of the head, in a row."""
        return torch.cat([parameter.detach().flatten() for parameter in self.head.parameters()]).numpy()


def beginner(seed: int, lr: float) -> Learner:
    """A learner that knows nothing yet."""
    return Learner(new_network(seed), lr)


@contextmanager
def alone() -> Iterator[None]:
    """One thread, because sums depend on how many share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tensors(scans: Scans) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(scans.images), torch.from_numpy(scans.labels)


def _loss(network: Network, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(network(images), labels)
