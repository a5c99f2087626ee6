"""Models with a constant: a parameter that did not require a gradient before anything was frozen here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """Adds a table of positions that is no buffer, as Whisper, Marian and ViTMAE do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(4.0), requires_grad=False)
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x + self.table))


class Detector(nn.Module):
    """Reads distances off a fixed convolution, as the heads of YOLO do: a module of nothing but a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.table, self.head = nn.Linear(4, 4), nn.Conv1d(4, 4, 1, bias=False), nn.Linear(4, 2)
        self.table.weight.data.copy_(torch.arange(16.0).reshape(4, 4, 1))
        self.table.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(self.body(x).unsqueeze(-1)).squeeze(-1))


class FrozenByHand(nn.Module):
    """Has an embedding that its user froze by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.table.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.table(x[:, 0].long())))


CONSTANT: dict[Callable[[], nn.Module], str] = {
    Positions: "table",
    Detector: "table.weight",
    FrozenByHand: "table.weight",
}
"""Each model -> the path of its constant."""

BODY = {"body.weight", "body.bias"}
HEAD = {"head.weight", "head.bias"}
