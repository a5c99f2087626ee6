"""Compiled blocks that are always called alike, whatever is frozen below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from frostline.torch._holding.mode import is_held


class Even:
    """Stands in for the compiled call of a block.

    Compiled code is made for inputs that require a gradient, or for inputs that do not. Where phases change, each
    block would need both, once frozen and once trainable. So the input is made to require one in any case. What that
    costs is the gradient of the input in the first block that trains; below it a block's graph is dropped as soon as
    the block was called, and nothing goes back through it.
    """

    def __init__(self, block: nn.Module, compiled: Callable[..., Any]) -> None:
        self.block, self.compiled = block, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        first = next((x for x in (*args, *kwargs.values()) if _is_differentiable(x)), None)
        if first is None or first.requires_grad or not torch.is_grad_enabled():
            return self.compiled(*args, **kwargs)
        asked = first.detach().requires_grad_()
        out = self.compiled(
            *(asked if x is first else x for x in args), **{k: asked if x is first else x for k, x in kwargs.items()}
        )
        return tree_map_only(torch.Tensor, torch.Tensor.detach, out) if is_held(self.block) else out


def even(model: nn.Module) -> None:
    """Makes the compiled blocks of a model be called alike, in place; idempotent.

    A block is a part of the model for which ``block.compile()`` was called. The model itself, compiled as a whole, is
    not touched: it has a variant for each phase anyway.
    """
    for module in model.modules():
        compiled = module._compiled_call_impl
        if compiled is not None and module is not model and not isinstance(compiled, Even):
            # The name is one that `torch.nn.Module` leaves out of copies and pickles.
            module._compiled_call_impl = Even(module, compiled)


def _is_differentiable(value: object) -> bool:
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())
