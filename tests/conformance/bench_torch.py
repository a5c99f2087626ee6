"""PyTorch on the bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

import frostline.torch as ft


def _batch() -> torch.Tensor:
    return torch.arange(20.0).reshape(5, 4).sin()


def _numbered(layer: nn.Linear, salt: int) -> nn.Linear:
    with torch.no_grad():
        for shift, tensor in enumerate((layer.weight, layer.bias)):
            count = torch.arange(tensor.numel(), dtype=torch.float32)
            tensor.copy_((count * 0.7 + salt + shift).cos().reshape(tensor.shape))
    return layer


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


class TorchBench:
    name = "torch"

    def layers(self) -> list[nn.Module]:
        sizes = ((4, 3), (3, 3), (3, 2))
        return [_numbered(nn.Linear(*size), salt) for salt, size in enumerate(sizes)]

    def chain(self, *layers: nn.Module) -> nn.Module:
        return nn.Sequential(*layers)

    def frozen(self, layer: nn.Module) -> nn.Module:
        return ft.Frozen(layer)

    def with_statistics(self) -> nn.Module:
        first, _, last = self.layers()
        trunk = nn.Sequential(first, nn.BatchNorm1d(3), nn.Dropout(0.5))
        return nn.Sequential(trunk, last)

    def tied(self) -> nn.Module:
        first, second = (_numbered(nn.Linear(3, 3), salt) for salt in range(2))
        second.weight = first.weight
        return nn.Sequential(first, second)

    def path(self, position: int, part: str) -> str:
        return f"{position}.{part}"

    def at(self, index: str) -> str:
        return index

    def freeze(self, model: nn.Module, *selectors: Any, **options: Any) -> nn.Module:
        ft.freeze(model, *selectors, **options)
        return model

    def thaw(self, model: nn.Module, *selectors: Any, **options: Any) -> nn.Module:
        ft.thaw(model, *selectors, **options)
        return model

    def plan(self, model: nn.Module) -> Any:
        return ft.plan(model)

    def follow(self, model: nn.Module, plan: Any) -> nn.Module:
        ft.follow(model, plan)
        return model

    def trainable(self, model: nn.Module) -> set[str]:
        return set(ft.trainable(model))

    def values(self, model: nn.Module) -> dict[str, bytes]:
        return {path: _bytes(tensor) for path, tensor in model.state_dict().items()}

    def output(self, model: nn.Module) -> bytes:
        return _bytes(model(_batch()))

    def input_gradient(self, model: nn.Module) -> bytes:
        batch = _batch().requires_grad_()
        (gradient,) = torch.autograd.grad(model(batch).sum(), batch)
        return _bytes(gradient)

    def gradient(self, terms: Sequence[tuple[float, nn.Module]], of: nn.Module) -> Mapping[str, list[float]]:
        wanted = ft.trainable(of)
        gradients = torch.autograd.grad(_loss(terms), list(wanted.values()), allow_unused=True)
        found = zip(wanted, gradients, strict=True)
        return {path: g.flatten().tolist() for path, g in found if g is not None}

    def gradient_of_layer(self, terms: Sequence[tuple[float, nn.Module]], layer: nn.Module) -> list[Any]:
        found = torch.autograd.grad(_loss(terms), list(layer.parameters()), allow_unused=True)
        return [None if g is None else g.flatten().tolist() for g in found]

    def train(self, model: nn.Module, *, steps: int, momentum_from: int = 0) -> nn.Module:
        everything = list(model.parameters())
        optimizer = torch.optim.AdamW(everything, lr=0.1, weight_decay=0.1)
        for _ in range(momentum_from):  # before the freeze, so that all have momentum
            for parameter in everything:
                parameter.grad = torch.ones_like(parameter)
            saved = [parameter.detach().clone() for parameter in everything]
            optimizer.step()
            for parameter, value in zip(everything, saved, strict=True):
                parameter.data.copy_(value)
                parameter.grad = None
        for _ in range(steps):
            model.train()
            optimizer.zero_grad(set_to_none=False)
            model(_batch()[:, : _width(model)]).square().sum().backward()
            optimizer.step()
        return model

    def write(self, layer: nn.Module, factor: float, *models: nn.Module) -> Sequence[nn.Module]:
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(factor)
        return models

    def guarded(self, model: nn.Module, act: Callable[[], Any]) -> Any:
        with ft.guard(model):
            return act()


def _loss(terms: Sequence[tuple[float, nn.Module]]) -> torch.Tensor:
    return torch.stack([factor * model(_batch()).sum() for factor, model in terms]).sum()


def _width(model: nn.Module) -> int:
    return next(m for m in model.modules() if isinstance(m, nn.Linear)).in_features


bench = TorchBench()
