"""The models that are measured: a frozen middle between a trainable first and a trainable last layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.zoo.residual import Bottleneck

Model = tuple[nn.Sequential, torch.Tensor]
"""``first``, ``middle`` and ``last`` in a sequence, and a batch for it."""


def chain(first: nn.Module, middle: nn.Module, last: nn.Module) -> nn.Sequential:
    """The input gradient flows through `middle`, because `first` trains."""
    model = nn.Sequential()
    for name, module in (("first", first), ("middle", middle), ("last", last)):
        model.add_module(name, module)
    return model


def mlp() -> Model:
    """50 linear layers, 48 of them frozen."""
    width = 256
    middle = nn.Sequential(*(m for _ in range(48) for m in (nn.Linear(width, width), nn.ReLU())))
    model = chain(nn.Sequential(nn.Linear(64, width), nn.ReLU()), middle, nn.Linear(width, 10))
    return model, torch.randn(384, 64)


def resnet() -> Model:
    """ResNet-50 (25.6 million parameters) on small pictures; its 16 blocks are frozen."""
    stem = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
    )
    blocks, before = [], 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(depth):
            blocks.append(Bottleneck(before, width, stride if block == 0 else 1))
            before = 4 * width
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1000))
    return chain(stem, nn.Sequential(*blocks), head), torch.randn(2, 3, 64, 64)


def encoder() -> Model:
    """12 of PyTorch's own transformer layers, all frozen."""
    layers = [nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True) for _ in range(12)]
    return chain(nn.Embedding(1000, 256), nn.Sequential(*layers), nn.Linear(256, 10)), tokens()


class CausalAttention(nn.Module):
    """Attention as GPT-2 writes it: a mask for the longest text is a buffer of each layer."""

    def __init__(self, width: int, heads: int, longest: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.register_buffer("bias", torch.ones(longest, longest, dtype=torch.bool).tril()[None, None])
        self.register_buffer("masked_bias", torch.tensor(-1e4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2) / shape[-1] ** 0.5
        scores = torch.where(self.bias[..., :length, :length], scores, self.masked_bias)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """A layer of GPT-2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln1, self.attention = nn.LayerNorm(width), CausalAttention(width, 4, 1024)
        self.ln2, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.ln1(x)))
        return x + self.dropout(self.down(F.gelu(self.up(self.ln2(x)))))


def gpt() -> Model:
    """12 layers of our own with mask buffers, all frozen."""
    return chain(nn.Embedding(1000, 256), nn.Sequential(*(Block(256) for _ in range(12))), nn.Linear(256, 10)), tokens()


def tokens() -> torch.Tensor:
    """4 texts of 32 words."""
    return torch.randint(1000, (4, 32))


MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "mlp": ("MLP, 50 layers", mlp),
    "resnet": ("ResNet-50", resnet),
    "encoder": ("12 x nn.TransformerEncoderLayer", encoder),
    "gpt": ("12 x own block with mask buffer", gpt),
}


def made(name: str) -> Model:
    """A model in training mode that is the same every time, and its batch."""
    torch.manual_seed(0)
    model, batch = MODELS[name][1]()
    return model.train(), batch
