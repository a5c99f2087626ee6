"""Modules of which is known what a call of them runs."""

from __future__ import annotations

from functools import lru_cache
from types import FunctionType
from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_stock(module: nn.Module) -> bool:
    """Whether every class of the module is one of PyTorch's or ours."""
    return is_stock_class.__wrapped__(type(module))  # in a trace, which warns of a cache


@lru_cache(maxsize=512)
def is_stock_class(kind: Any) -> bool:
    """Whether every class that this one derives from is one of PyTorch's or ours."""
    classes = (c for c in kind.__mro__ if issubclass(c, nn.Module))  # a generated one has the module of its original
    return all(c.__module__.startswith(("torch.nn.", "frostline.torch.")) for c in classes)


def is_known(module: nn.Module) -> bool:
    """Whether a call of the module itself runs PyTorch's own code alone, with no hook and no other forward."""
    return is_stock(module) and runs_forward_of_class(module)


def runs_forward_of_class(module: nn.Module) -> bool:
    """Whether a call of the module runs no hook and no other forward than that of its class."""
    attributes = module.__dict__
    foreign = [attributes["forward"]] if "forward" in attributes else []
    foreign += [hook for name in HOOKS for hook in attributes[name].values()]
    return all(map(_is_ours, foreign))


def _is_ours(function: Any) -> bool:
    home = function if isinstance(function, FunctionType) else type(getattr(function, "__self__", function))
    return home.__module__.startswith("frostline.")
