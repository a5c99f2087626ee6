"""What tensors and modules hold, as bytes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def bits(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """The tensor's type, shape and bytes: equal if and only if the tensors are bitwise equal."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return str(tensor.dtype), tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes()


def contents(module: nn.Module) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every parameter and buffer of the module, as bytes."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return {name: bits(tensor) for name, tensor in named}


def gradients(module: nn.Module) -> dict[str, tuple[str, tuple[int, ...], bytes] | None]:
    """The gradient of every parameter, as bytes."""
    return {name: None if p.grad is None else bits(p.grad) for name, p in module.named_parameters()}


def moved(before: dict[str, object], module: nn.Module) -> set[str]:
    """The names of what is not bitwise what it was."""
    now = contents(module)
    assert now.keys() == before.keys()
    return {name for name in before if before[name] != now[name]}


def training(module: nn.Module) -> set[str]:
    """The paths of the modules in training mode."""
    return {path for path, inner in module.named_modules() if inner.training}


def without_gradient(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether there are parameters and none of them has a gradient."""
    parameters = list(parameters)
    assert parameters
    return all(p.grad is None for p in parameters)
