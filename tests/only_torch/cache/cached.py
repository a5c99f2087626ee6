"""A line drawn by hand, and datasets, for the tests of the feature cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from frostline._core.fingerprint import fingerprint
from frostline.features.boundary import Boundary
from frostline.torch._tensors import bytes_of, dtype_name


class DrawnLine:
    """A line for a Sequential that is cut at one place, without a trace; it counts the samples that it computes."""

    def __init__(self, model: nn.Sequential, *example: Tensor, at: int = 1) -> None:
        self.model, self.at = model, at
        self.calls = 0
        self.boundary = tuple(_of(f"value{n}", value) for n, value in enumerate(self._below(*example)))

    @property
    def tensors(self) -> dict[str, Tensor]:
        below = self.model[: self.at]
        return {**dict(below.named_parameters()), **dict(below.named_buffers())}

    def _below(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            found = self.model[: self.at](*inputs)
        return found if isinstance(found, tuple) else (found,)

    def below(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.calls += len(inputs[0])
        return self._below(*inputs)

    def above(self, *boundary: Tensor) -> Tensor:
        return self.model[self.at :](*boundary)

    def fingerprint(self) -> str:
        entries = []
        for name, tensor in self.tensors.items():
            with bytes_of(tensor) as data:
                entries.append((name, str(tensor.dtype), tuple(tensor.shape), bytes(data)))
        return fingerprint(entries).total


def _of(name: str, value: Tensor) -> Boundary:
    return Boundary(name, tuple(value.shape[1:]), dtype_name(value.dtype), value[0].numel() * value.element_size())


def net() -> nn.Sequential:
    """Returns a frozen layer of 4 to 6, and a head."""
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 3))
    model[0].requires_grad_(False)
    return model.eval()


def line() -> DrawnLine:
    """Returns the same line at each call."""
    torch.default_generator.manual_seed(7)
    return DrawnLine(net(), torch.zeros(2, 4))


class Numbered(Dataset[tuple[Tensor, int]]):
    """Samples that are the same at each read; it counts the reads."""

    def __init__(self, samples: int = 20, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.inputs = change(torch.randn(samples, 4, generator=torch.Generator().manual_seed(3)))
        self.reads = 0

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.inputs[index], index % 3


class Noisy(Numbered):
    """Samples that differ at each read."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        inputs, label = super().__getitem__(index)
        return inputs + torch.randn(4), label
