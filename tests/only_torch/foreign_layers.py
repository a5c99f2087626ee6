"""Layers as other libraries write them: with a ``train`` of their own, writes into children, caches and flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Merging(nn.Linear):
    """A low-rank adapter that evaluation mode adds to the weight, as in loralib."""

    def __init__(self, size: int = 4) -> None:
        super().__init__(size, size)
        self.a, self.b = nn.Parameter(torch.randn(2, size)), nn.Parameter(torch.randn(size, 2))
        self.merged = False
        self.told: list[bool] = []

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        self.told = [*self.told, mode]
        if mode is self.merged:
            self.weight.data += (-1 if mode else 1) * self.b @ self.a
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.merged else y + x @ self.a.T @ self.b.T


class Reparametrized(nn.Module):
    """Branches that are one kernel in evaluation mode, which is all that its forward reads there, as in RepVGG."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.kernel: Tensor | None = None

    def train(self, mode: bool = True) -> Reparametrized:
        super().train(mode)
        self.kernel = None if mode else (self.first.weight + self.second.weight).detach()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x) if self.training else x @ self.kernel.T


class StemStill(nn.Module):
    """A backbone whose own ``train`` keeps its stem in evaluation mode, as mmdetection's do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> StemStill:
        super().train(mode)
        self.stem.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x))


def stay(self: nn.Module, mode: bool = True) -> nn.Module:
    """Set on an instance as its ``train``, as latent diffusion does with its autoencoder."""
    return self


class Contrast(nn.Module):
    """A momentum encoder and a queue of keys, as in MoCo."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("queue", torch.zeros(6, 4))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self) -> None:
        for key, query in zip(self.key.parameters(), self.query.parameters(), strict=True):
            key.mul_(0.9).add_(query, alpha=0.1)

    def forward(self, x: Tensor) -> Tensor:
        self.update()
        key = self.key(x)
        with torch.no_grad():
            self.queue[int(self.pointer) : int(self.pointer) + 2] = key[:2]
            self.pointer.add_(2).remainder_(6)
        return self.query(x) @ self.queue.clone().T


class ContrastByData(Contrast):
    """The same, through ``.data``, which counts no version."""

    def update(self) -> None:
        for key, query in zip(self.key.parameters(), self.query.parameters(), strict=True):
            key.data = key.data * 0.9 + query.data * 0.1
            key.data.mul_(0.5)


class Codes(nn.Module):
    """What a vector quantiser keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.arange(12.0).reshape(3, 4))
        self.register_buffer("count", torch.zeros(3))


class Quantised(nn.Module):
    """A vector quantiser that writes the codebook of a child that is never called, and then computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.codes = nn.Linear(4, 4), Codes()

    def forward(self, x: Tensor) -> Tensor:
        z = self.encode(x)
        with torch.no_grad():
            self.codes.codebook.lerp_(z.mean(0).expand(3, 4), 0.1)
            self.codes.count = self.codes.count + 1
        return z @ self.codes.codebook.T


class FakeQuantised(nn.Module):
    """A fused observer: the parent writes scale and counter of its child, also in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.observer = nn.Linear(4, 4), nn.Module()
        self.observer.register_buffer("scale", torch.ones(()))
        self.observer.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.observer.scale.copy_(x.detach().abs().max() / 127)
        self.observer.seen += 1
        return torch.fake_quantize_per_tensor_affine(
            self.linear(x), self.observer.scale, torch.zeros(1).int()[0], -128, 127
        )


class Recursive(nn.Module):
    """A module that calls itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("depth", torch.zeros(1))

    def forward(self, x: Tensor, left: int = 2) -> Tensor:
        self.depth += 1
        return self.linear(x) if left == 0 else self(x, left - 1)


class Replacing(nn.Module):
    """Puts other tensors into the registries of its children."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.running_mean = self.norm.running_mean + x.detach().mean(0)
        self.linear.weight = nn.Parameter(self.linear.weight.detach() * 0.9)
        del self.linear.bias
        self.linear.bias = nn.Parameter(torch.zeros(4))
        return self.norm(self.linear(x))


class DetectionHead(nn.Module):
    """A head that gives raw distances in training and boxes in evaluation, read off a fixed table, as those of YOLO do.

    It keeps the anchors of the last shape as plain attributes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.SiLU())
        self.table = nn.Linear(4, 1, bias=False).requires_grad_(False)
        self.table.weight.data = torch.arange(4.0)[None]
        self.shape: tuple[int, ...] | None = None
        self.anchors = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.branch(x)
        if self.training:
            return raw
        if self.shape != raw.shape:
            self.shape, self.anchors = raw.shape, torch.arange(0.5, len(raw))[:, None]
        return self.anchors + self.table(raw.unflatten(1, (2, 4)).softmax(2)).squeeze(2)


class EmptyContainers(nn.Linear):
    """A layer with children that contain nothing and so are false, as PEFT keeps one for each kind of adapter."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.adapters, self.scales, self.after = nn.ModuleDict(), nn.ParameterDict(), nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(super().forward(x))


class Observed(nn.Sequential):
    """A convolution and a norm that PyTorch has prepared for quantisation-aware training."""

    def __init__(self) -> None:
        super().__init__(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 1))
        quantization.fuse_modules_qat(self, [["0", "1", "2"]], inplace=True)
        self.qconfig = quantization.default_qat_qconfig
        quantization.prepare_qat(self, inplace=True)


def cloned(module: nn.Module) -> nn.Module:
    """A clone through ``__dict__``, as learn2learn makes it."""
    clone = module.__new__(type(module))
    clone.__dict__ = module.__dict__.copy()
    clone._parameters = {
        name: nn.Parameter(p.detach().clone()) for name, p in module._parameters.items() if p is not None
    }
    clone._buffers = {name: b.clone() for name, b in module._buffers.items()}
    clone._modules = {name: cloned(child) for name, child in module._modules.items()}
    return clone


def with_hook(kind: str) -> Callable[[], nn.Module]:
    """A stock layer with a hook that writes one of its buffers."""

    def build() -> nn.Module:
        layer = nn.Linear(4, 4)
        layer.register_buffer("seen", torch.zeros(4))

        def write(module: Any, inputs: tuple[Tensor], *_: Any) -> None:
            module.seen.lerp_(inputs[0].detach().mean(0), 0.1)

        getattr(layer, kind)(write)
        return layer

    return build


class Block(nn.Module):
    """A block that computes its activations again if it has the flag and trains, as those of diffusers did."""

    gradient_checkpointing = True

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)

    def inner(self, x: Tensor) -> Tensor:
        hidden = F.dropout(torch.tanh(self.linear(x)), 0.5, self.training)
        return x + self.drop(torch.tanh(self.linear(hidden)))

    def forward(self, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and self.training:
            return checkpoint(self.inner, x, use_reentrant=False)
        return self.inner(x)


class BlockAround(nn.Module):
    """A block whose class does it around the call, as those of transformers do."""

    gradient_checkpointing = True

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.gradient_checkpointing and self.training:
            return checkpoint(super().__call__, *args, use_reentrant=False, **kwargs)
        return super().__call__(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(torch.tanh(self.linear(x)), 0.5, self.training)
        return x + self.drop(torch.tanh(self.linear(hidden)))


WRITERS: dict[str, Callable[[], nn.Module]] = {
    "momentum encoder": Contrast,
    "momentum encoder by data": ContrastByData,
    "vector quantiser": Quantised,
    "fused observer": FakeQuantised,
    "recursion": Recursive,
    "replaced tensors": Replacing,
    "forward hook": with_hook("register_forward_hook"),
    "forward pre-hook": with_hook("register_forward_pre_hook"),
}
"""Layers that a call writes, at or below the layer that is called, also in evaluation mode."""
