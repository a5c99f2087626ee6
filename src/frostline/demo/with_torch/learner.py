"""A network with its optimizer, and the routine that trains it: the same for every way, and blind to what is frozen."""

from __future__ import annotations

import copy
import time
from typing import final

import torch
import torch.nn.functional as F
from torch import nn

import frostline.torch as ft
from frostline.demo.network import Network
from frostline.demo.scans import Scans


@final
class Learner:
    """Trains a network.

    The optimizer is AdamW with weight decay, and is handed *all* parameters: keeping the frozen ones still is not
    the business of this class.

    Attributes:
        seconds: what each step took.
    """

    def __init__(self, network: Network, lr: float) -> None:
        self.network = network.train()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.05)
        self.seconds: list[float] = []

    def step(self, batch: Scans) -> None:
        """Takes one step, and its time."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        _loss(self.network, batch).backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)

    def scores(self, scans: Scans, *, head: nn.Linear | None = None) -> torch.Tensor:
        """What it says in evaluation mode, with its own head or with another one on its trunk, shape `(n, 5)`."""
        self.network.eval()
        with torch.no_grad():
            scores: torch.Tensor = (head or self.network.head)(self.network.trunk(scans.images))
        self.network.train()
        return scores

    def accuracy(self, scans: Scans, *, head: nn.Linear | None = None) -> float:
        """The share of scans that it reads right."""
        return accuracy(self.scores(scans, head=head), scans)

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
        own = {kept.untyped_storage().data_ptr() for kept in network.state_dict().values()}
        saved: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = _loss(network, batch)
        # While the loss lives, so do the tensors, and no two of them share an address.
        del loss
        return sum(size for address, size in saved.items() if address not in own)


def accuracy(scores: torch.Tensor, scans: Scans) -> float:
    """The share of scans whose digit has the highest score."""
    return (scores.argmax(1) == scans.labels).double().mean().item()


def _loss(network: Network, batch: Scans) -> torch.Tensor:
    return F.cross_entropy(network(batch.images), batch.labels)
