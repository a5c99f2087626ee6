"""A ViT (https://arxiv.org/abs/2010.11929), a BERT (https://arxiv.org/abs/1810.04805), a Llama (https://arxiv.org/abs/2302.13971)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Every token looks at every other one or, if causal, at those before it."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, *, is_causal: bool = False) -> None:
        super().__init__()
        self.heads, self.dropout, self.is_causal = heads, dropout, is_causal
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (split(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.is_causal)
        return self.proj(y.transpose(1, 2).flatten(2))


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Wider, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ViTBlock(nn.Module):
    """Norms first."""

    def __init__(self, width: int, heads: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width, heads, is_causal=is_causal)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=1e-6), Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """`patch_embed`, `blocks` and a `head`."""

    def __init__(self, picture: int, patch: int, width: int, depth: int, heads: int, classes: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (picture // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(ViTBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class BertLayer(nn.Module):
    """Norms last, dropout behind each part."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.norm1 = Attention(width, heads, dropout), nn.LayerNorm(width, eps=1e-12)
        self.mlp, self.norm2 = Mlp(width), nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.dropout(self.attention(x)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class Bert(nn.Module):
    """`embeddings`, `layer` and a `classifier`."""

    def __init__(self, words: int, longest: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word": nn.Embedding(words, width),
                "position": nn.Embedding(longest, width),
                "norm": nn.LayerNorm(width, eps=1e-12),
                "dropout": nn.Dropout(dropout),
            }
        )
        self.layer = nn.Sequential(*(BertLayer(width, heads, dropout) for _ in range(depth)))
        self.classifier = nn.Linear(width, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embeddings["word"](tokens) + self.embeddings["position"](places)
        x = self.embeddings["dropout"](self.embeddings["norm"](x))
        return self.classifier(self.layer(x)[:, 0])


class LlamaLayer(nn.Module):
    """Causal attention with rotated queries and keys, then a gated perceptron; no bias anywhere."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, inner = heads, 8 * width // 3 // 8 * 8
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.q, self.k = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.v, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        q, k = rotated(split(self.q(y), self.heads), angles), rotated(split(self.k(y), self.heads), angles)
        y = F.scaled_dot_product_attention(q, k, split(self.v(y), self.heads), is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def rotated(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat([-second, first], -1)
    return x * angles.cos() + turned * angles.sin()


class Llama(nn.Module):
    """`embed_tokens`, `layers`, `norm` and `lm_head`."""

    def __init__(self, words: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(words, width)
        self.layers = nn.ModuleList(LlamaLayer(width, heads) for _ in range(depth))
        self.norm, self.lm_head = nn.RMSNorm(width, eps=1e-6), nn.Linear(width, words, bias=False)
        half = width // heads // 2
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(half) / half), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        angles = torch.outer(places, self.frequencies).repeat(1, 2)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, angles)
        return self.lm_head(self.norm(x))
