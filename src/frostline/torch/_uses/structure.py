"""A module's structure with other tensors: each module of the original has a counterpart of its own class."""

from __future__ import annotations

import torch
from torch import nn

from frostline._core.errors import UnsupportedError
from frostline.torch._uses.hooks import HOOKS
from frostline.torch._uses.rebinding import Rebinding
from frostline.torch._wrappers import is_compiled

REGISTRIES = frozenset({"_parameters", "_buffers", "_modules", *HOOKS})


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a constant that shares the tensor's storage and its version counter.

    The shared counter is what makes autograd notice an in-place write to the original between
    forward and backward. ``other.data = tensor.data`` would lose it.
    """
    if not isinstance(tensor, nn.Parameter):
        return tensor.detach()
    if type(tensor) is nn.Parameter or not issubclass(type(tensor), nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=False)
    made: torch.Tensor = torch.Tensor._make_subclass(type(tensor), tensor.detach(), False)
    made.__dict__.update(vars(tensor))
    return made


def refuse(expression: str, found: list[nn.Module | torch.Tensor]) -> None:
    """Refuses a layer of which there can be no constant view.

    Raises:
        UnsupportedError: a parameter has no shape yet, or a part is compiled.
    """
    for item in found:
        if isinstance(item, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise UnsupportedError(
                expression,
                "has a lazy parameter that has no shape yet.",
                "Run one batch through the layer first: layer(x); then Frozen(layer).",
            )
        if isinstance(item, nn.Module) and is_compiled(item):
            raise UnsupportedError(
                expression,
                "is compiled, and compiled code calls the layer itself.",
                "Compile what contains the frozen use: torch.compile(model).",
            )


def rebind_attributes(module: nn.Module, rebinding: Rebinding) -> None:
    """Makes the plain attributes of a copied module lead to copies, in place."""
    module.__dict__.pop("_compiled_call_impl", None)  # module.compile() made it, and it calls the original
    for name, value in list(vars(module).items()):
        if name not in REGISTRIES:
            vars(module)[name] = rebinding.of(value)
