"""PyTorch: a small decoder, trained in every way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import frostline.torch as ft
from benchmarks.memory import saved_bytes
from benchmarks.schedules.case import Case
from benchmarks.schedules.setup import DECAY, RATE, RELEASE, Held, Moments, Setup, batches, trained_at
from benchmarks.schedules.side_by_side import Seconds, Trainee, measured, timed

State = dict[str, torch.Tensor]


class Embedding(nn.Module):
    """Words and places."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.words = nn.Embedding(setup.vocabulary, setup.width)
        self.places = nn.Embedding(setup.length, setup.width)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.words(text) + self.places.weight[: text.shape[1]]


class Layer(nn.Module):
    """Causal attention and an MLP, normalised before each."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Decoder(nn.Module):
    """``embed``, ``layers`` and ``head``; nothing is tied."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.embed = Embedding(setup)
        self.layers = nn.ModuleList(Layer(setup.width) for _ in range(setup.layers))
        self.head = nn.Sequential(nn.LayerNorm(setup.width), nn.Linear(setup.width, setup.vocabulary, bias=False))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = self.embed(text)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)

    def loss(self, text: torch.Tensor) -> torch.Tensor:
        """The loss of predicting each word from those before it."""
        return F.cross_entropy(self(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


class TorchTrainee(Trainee):
    """With AdamW, bound to the model and driven where there is a schedule."""

    def begin(self, start: State | None, moments: Moments) -> None:
        torch.manual_seed(0)
        self.model = Decoder(self.setup)
        if start is not None:
            self.model.load_state_dict(start)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=DECAY)
        self.binding: ft.Binding | None = None
        self.driver: ft.Driver | None = None
        if self.schedule is not None:
            self.binding = ft.bind(self.optimizer, self.model, moments=moments)
            self.driver = ft.Driver(self.schedule, self.model, self.binding)
        self._saved_by: dict[tuple[str, ...], int] = {}

    def step(self, text: list[list[int]]) -> None:
        batch, record = torch.tensor(text), self.record
        record.saved.append(self._saved(batch))
        self.optimizer.zero_grad()
        loss, forward = timed(lambda: self.model.loss(batch))
        _, backward = timed(loss.backward)
        gradients = sum(p.grad.nbytes for p in self.model.parameters() if p.grad is not None)
        record.losses.append(loss.item())
        _, update = timed(self.optimizer.step)
        record.held.append(Held(*self._moments(), gradients))
        _, schedule = timed(self.driver.step) if self.driver else (None, 0.0)
        record.seconds.append(Seconds(forward + backward + update, backward, schedule))

    def _moments(self) -> tuple[int, int]:
        """Of what trains, and of what is frozen."""
        inside = sum(map(nbytes, self.optimizer.state.values()))
        if self.binding is None:
            return inside, 0
        return inside, sum(map(nbytes, self.binding.state_dict()["state"].values())) - inside

    def _saved(self, batch: torch.Tensor) -> int:
        """The same for all steps at which the same blocks train, so it is counted once."""
        now = tuple(trained_at(self.setup, self.schedule, len(self.record.held)))
        if now not in self._saved_by:
            self._saved_by[now] = saved_bytes(self.model, lambda: self.model.loss(batch))
        return self._saved_by[now]


def nbytes(state: dict[str, object]) -> int:
    """Of the tensors in the state of one parameter, counters left out."""
    return sum(value.nbytes for value in state.values() if isinstance(value, torch.Tensor) and value.dim())


def learned(setup: Setup) -> State:
    """Weights that have learned the first language: all ways begin with them."""
    trainee = TorchTrainee(setup, None, None, RELEASE)
    for text in batches(setup, changed=False):
        trainee.step(text)
    return trainee.model.state_dict()


def measure(setup: Setup) -> list[Case]:
    """Measures all ways."""
    return measured(setup, learned, TorchTrainee)
