"""Compiled blocks that are called alike, whatever is frozen below them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from frostline.torch._holding.classes import is_held_alone
from frostline.torch._holding.mode import is_held
from frostline.torch._tensors import is_differentiable


class CompiledBlock:
    """Replaces the compiled call of a block.

    Compiled code is made for inputs that require a gradient, or for inputs that do not. Where phases change, each
    block would need both, once frozen and once trainable. So the input is always made to require one. This costs the
    gradient of the input in the first block that trains; below it a block's graph is dropped as soon as the block was
    called, and nothing goes back through it.
    """

    def __init__(self, block: nn.Module, compiled: Callable[..., Any]) -> None:
        self.block, self.compiled = block, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values = (*args, *kwargs.values())
        first = next((x for x in values if isinstance(x, torch.Tensor) and is_differentiable(x)), None)
        if first is None or first.requires_grad or not torch.is_grad_enabled():
            return self.compiled(*args, **kwargs)
        asked = first.detach().requires_grad_()
        out = self.compiled(
            *(asked if x is first else x for x in args), **{k: asked if x is first else x for k, x in kwargs.items()}
        )
        return tree_map_only(torch.Tensor, torch.Tensor.detach, out) if _is_frozen(self.block) else out


def _is_frozen(block: nn.Module) -> bool:
    return is_held(block) and not is_held_alone(block)


def call_alike(model: nn.Module) -> None:
    """Makes the compiled blocks of a model be called alike, in place; idempotent.

    A block is a part of the model whose ``compile()`` was called. The model itself, compiled as a whole, is
    not touched: it has a variant for each phase anyway.
    """
    for module in model.modules():
        compiled = module._compiled_call_impl
        if compiled is not None and module is not model and not isinstance(compiled, CompiledBlock):
            # PyTorch leaves an attribute of this name out of copies and pickles.
            module._compiled_call_impl = CompiledBlock(module, compiled)
