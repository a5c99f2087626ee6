"""Layers that do what layers in the wild do, and that a view of a layer can get wrong."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class CachedBias(nn.Module):
    """Keeps a non-leaf tensor as a plain attribute in evaluation mode, as the attention of LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(5))
        self.inner = nn.Linear(4, 4)
        self.cache: dict[str, Tensor] = {}
        self.register_buffer("index", torch.tensor([0, 3, 1, 4]), persistent=False)

    def train(self, mode: bool = True) -> "CachedBias":
        super().train(mode)
        if mode:
            self.cache = {}
        return self

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.inner(x) + self.bias[self.index]
        if "cpu" not in self.cache:
            self.cache["cpu"] = self.bias[self.index]
        return self.inner(x) + self.cache["cpu"]


class ListedChildren(nn.Module):
    """Lists its children a second time in a plain list, and calls them through it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.stages = [self.one, self.two]

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x).tanh()
        return x


class ListedParameters(nn.Module):
    """Lists its parameters a second time in a plain list, as torch.nn.RNN does."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))
        self.weights = [self.one, self.two]

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weights[0] @ self.weights[1]


class Codebook(nn.Module):
    """Moves an average of its inputs in every mode, evaluation included."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(4))
        self.register_buffer("mean", torch.rand(4))
        self.register_buffer("count", torch.tensor(1))

    def forward(self, x: Tensor) -> Tensor:
        out = (x - self.mean) * self.scale
        with torch.no_grad():
            self.mean.lerp_(x.mean(0), 0.5)
            self.count += 1
            self.mean = self.mean * 0.9
        return out


class StochasticDepth(nn.Module):
    """Drops its residual branch at random while ``self.training``."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.rand(()) < 0.5:
            return x
        return x + self.branch(x)


class Checkpointed(nn.Module):
    """Computes its body again during backward."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.GELU(), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        if not x.requires_grad and self.use_reentrant:
            x = x.detach().requires_grad_()
        return checkpoint(self.body, x, use_reentrant=self.use_reentrant)


class TiedPair(nn.Module):
    """Uses one matrix twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 4), nn.Linear(4, 4)
        self.out.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.into(x).tanh())


class IntegerWeight(nn.Module):
    """Holds its weight as integers, as layers of quantised models do, and a trainable scale."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randint(-8, 8, (4, 4), dtype=torch.int8), requires_grad=False)
        self.scale = nn.Parameter(torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype)) * self.scale


class ScalarGain(nn.Module):
    """Has a parameter without dimensions, on the root."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.7))
        self.offset = nn.Parameter(torch.tensor(-0.2))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.gain + self.offset).sin()


class NamedResult(nn.Module):
    """Takes keyword arguments and gives a dict, as the models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, *, hidden: Tensor, scale: float = 1.0) -> dict[str, object]:
        return {"hidden": self.inner(hidden) * scale, "scale": scale}


class BoundForward(nn.Module):
    """Chooses its forward at construction, as an instance attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.forward = self._chosen

    def _chosen(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Delegating(nn.Module):
    """Looks up what it does not have in the module that it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.wrapped = nn.Linear(4, 4)

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("wrapped"), name)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class BackReference(nn.Module):
    """Has a child that reaches its parameters through a list that holds the parent."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.child = _Child([self])

    def forward(self, x: Tensor) -> Tensor:
        return self.child(x)


class _Child(nn.Module):
    def __init__(self, parent: list[nn.Module]) -> None:
        super().__init__()
        self.parent = parent

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.parent[0].weight


class ComplexFilter(nn.Module):
    """Filters in the frequency domain with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=4)
