"""Copies of a module's structure whose tensors are aliases of the original's."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from frostline._core.errors import UnsupportedError
from frostline.torch._uses.hooks import HOOKS, copied_hooks
from frostline.torch._uses.rebinding import Rebinding
from frostline.torch._wrappers import is_compiled

REGISTRIES = frozenset({"_parameters", "_buffers", "_modules", *HOOKS})
_OPAQUE = (torch.Tensor, type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, str, bytes)


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


def reachable(module: nn.Module) -> Iterator[nn.Module | torch.Tensor]:
    """Yields every module and tensor that hangs below a module, registered or not."""
    seen: set[int] = set()
    waiting: list[Any] = [module]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module | torch.Tensor):
            yield value
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            waiting.extend(value)
        elif not isinstance(value, _OPAQUE):
            waiting.extend(getattr(value, "__dict__", {}).values())


def copy_structure(module: nn.Module, top: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Gives `top` the attributes of `module`, with an alias in place of each tensor.

    Args:
        module: what to copy; nothing in it is changed.
        top: an instance without attributes; takes the place of `module` inside, too.

    Returns:
        Each module of the original with its counterpart.

    Raises:
        UnsupportedError: a parameter has no shape yet, or an attribute cannot be copied.
    """
    expression = f"Frozen({type(module).__name__})"
    memo: dict[int, Any] = {id(module): top}
    found = list(reachable(module))
    for item in found:
        if isinstance(item, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise UnsupportedError(
                expression,
                "has a lazy parameter that has no shape yet.",
                "Run one batch through the layer first: layer(x); then Frozen(layer).",
            )
        if isinstance(item, torch.Tensor):
            memo[id(item)] = alias(item)
        elif is_compiled(item):
            raise UnsupportedError(
                expression,
                "is compiled, and compiled code calls the layer itself.",
                "Compile what contains the frozen use: torch.compile(model).",
            )
        else:
            memo.update(copied_hooks(item))
    try:
        top.__dict__.update(copy.deepcopy(vars(module), memo))
    except (TypeError, RuntimeError) as error:
        raise UnsupportedError(
            expression,
            f"cannot copy the structure of this layer: {error}.",
            "Move the attribute that cannot be copied out of the layer, or freeze the layer itself: freeze(layer).",
        ) from error
    pairs = [(m, memo[id(m)]) for m in found if isinstance(m, nn.Module) and id(m) in memo]
    rebinding = Rebinding(memo)
    for _, copied in pairs:
        rebind_attributes(copied, rebinding)
    return pairs


def rebind_attributes(module: nn.Module, rebinding: Rebinding) -> None:
    """Makes the plain attributes of a copied module lead to copies, in place."""
    module.__dict__.pop("_compiled_call_impl", None)  # module.compile() made it, and it calls the original
    for name, value in list(vars(module).items()):
        if name not in REGISTRIES:
            vars(module)[name] = rebinding.of(value)
