"""An LSTM over words (Hochreiter and Schmidhuber 1997)."""

from __future__ import annotations

import torch
from torch import nn


class Recurrent(nn.Module):
    """`embed`, `lstm` and a `head` on the last word."""

    def __init__(self, words: int, width: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, width, depth, batch_first=True)
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(tokens))[0][:, -1])
