"""A small convolutional network with batch norm: a trunk that sees, and a head that names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import torch
from torch import nn

WIDTH = 16
FEATURES = 2 * WIDTH * 2 * 2


@final
class Network(nn.Module):
    """Tells five digits apart.

    Example:
        >>> Network()(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 5])
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_block(1, WIDTH),
            *_block(WIDTH, 2 * WIDTH),
            nn.MaxPool2d(2),
            *_block(2 * WIDTH, 2 * WIDTH),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(FEATURES, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The scores of the five digits, shape `(n, 5)`."""
        scores: torch.Tensor = self.head(self.trunk(images))
        return scores


def new_network(seed: int) -> Network:
    """A network that knows nothing yet."""
    with seeded(seed):
        return Network()


def new_head(seed: int) -> nn.Linear:
    """A head that knows nothing yet."""
    with seeded(seed):
        return nn.Linear(FEATURES, 5)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed; those of the caller stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _block(channels: int, made: int) -> tuple[nn.Module, ...]:
    # Batch norm adds a bias of its own.
    return nn.Conv2d(channels, made, 3, padding=1, bias=False), nn.BatchNorm2d(made), nn.ReLU()
