"""Tensors of a class that wraps others, as libraries for quantisation have them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


class Quantised(Tensor):
    """Eight bits and a scale for each row; what is computed with it is computed with the values that they stand for."""

    data_: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, data_: Tensor, scale: Tensor) -> Quantised:
        made = Tensor._make_wrapper_subclass(cls, data_.shape, dtype=scale.dtype)
        made.data_, made.scale = data_, scale
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["data_", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, Tensor], *_: Any) -> Quantised:
        return cls(inner["data_"], inner["scale"])

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return cls(args[0].data_, args[0].scale)
        plain = tree_map(lambda value: value.dequantized() if isinstance(value, cls) else value, (args, kwargs or {}))
        return function(*plain[0], **plain[1])

    def dequantized(self) -> Tensor:
        return self.data_.to(self.scale.dtype) * self.scale

    def __repr__(self) -> str:  # type: ignore[override]
        return "Quantised()"


def quantised_net() -> nn.Sequential:
    """A model whose first layer is quantised."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    weight = model[0].weight.detach()
    scale = weight.abs().amax(1, keepdim=True) / 127
    model[0].weight = nn.Parameter(Quantised((weight / scale).round().to(torch.int8), scale), requires_grad=False)
    return model
