"""All of a model that freezing could change, and a training routine that knows nothing of freezing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from only_torch.bits import bits, contents


def below(model: nn.Module, path: str) -> set[str]:
    """The names of everything at and below a module of the model."""
    return {name for name in contents(model) if name.startswith(f"{path}.")}


def state(model: nn.Module) -> dict[str, Any]:
    """All that freezing could touch: flags, gradients, modes, bytes, attributes and hooks."""
    return {
        "flags": {name: (id(p), p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)},
        "gradients": {n: None if p.grad is None else bits(p.grad) for n, p in model.named_parameters()},
        "modes": {path: module.training for path, module in model.named_modules()},
        "bytes": contents(model),
        "attributes": {path: sorted(vars(module)) for path, module in model.named_modules()},
        "hooks": {path: _hooks(module) for path, module in model.named_modules()},
    }


def _hooks(module: nn.Module) -> dict[str, int]:
    return {name: len(hooks) for name, hooks in vars(module).items() if name.endswith("_hooks")}


def train(
    model: nn.Module,
    x: torch.Tensor,
    *,
    steps: int = 2,
    make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
) -> torch.optim.Optimizer:
    """An unmodified training routine: it trains all it is given, with decay, in training mode."""
    parameters = list(model.parameters())
    optimizer = make(parameters) if make else torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad(set_to_none=False)
        model(x).square().sum().backward()
        optimizer.step()
    return optimizer
