"""Copies of a module's structure whose tensors are aliases of the original's."""

from __future__ import annotations

import copy
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from frostline._core.errors import UnsupportedError

HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_OPAQUE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, str, bytes)


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """A constant that shares the tensor's storage and its version counter.

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
    """Every module and tensor that hangs below a module, registered or not."""
    seen: set[int] = set()
    waiting: list[Any] = [module]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _OPAQUE):
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module | torch.Tensor):
            yield value
        waiting.extend(_inside(value))


def _inside(value: Any) -> list[Any]:
    if isinstance(value, torch.Tensor):
        return []
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(getattr(value, "__dict__", {}).values())


def aliased_state(module: nn.Module, stand_in: nn.Module) -> tuple[dict[str, Any], list[tuple[nn.Module, nn.Module]]]:
    """The attributes of `module`, copied in structure, with an alias in place of each tensor.

    Args:
        module: what to copy; nothing in it is changed.
        stand_in: what takes the place of `module` where something inside refers to it.

    Returns:
        The copied attributes, and each module of the original with its counterpart.

    Raises:
        UnsupportedError: a parameter has no shape yet, or an attribute cannot be copied.
    """
    memo: dict[int, Any] = {id(module): stand_in}
    found = list(reachable(module))
    inside = {id(m) for m in found if isinstance(m, nn.Module)}
    for item in found:
        if isinstance(item, torch.Tensor):
            memo[id(item)] = alias(_materialised(item, module))
        else:
            memo.update({id(d): d for d in _shareable_hooks(item, inside)})
    try:
        state = copy.deepcopy(vars(module), memo)
    except (TypeError, RuntimeError) as error:
        raise UnsupportedError(
            f"Frozen({type(module).__name__})",
            f"cannot copy the structure of this layer: {error}.",
            "Move the attribute that cannot be copied out of the layer, or freeze the layer itself: freeze(layer).",
        ) from error
    modules = [m for m in found if isinstance(m, nn.Module)]
    return state, [(m, memo[id(m)]) for m in modules if id(m) in memo]


def _materialised(tensor: torch.Tensor, module: nn.Module) -> torch.Tensor:
    if isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
        raise UnsupportedError(
            f"Frozen({type(module).__name__})",
            "has a lazy parameter that has no shape yet.",
            "Run one batch through the layer first: layer(x); then Frozen(layer).",
        )
    return tensor


def _shareable_hooks(module: nn.Module, inside: set[int]) -> Iterator[dict[int, Any]]:
    # Sharing the dict lets a hook that is added to the layer later fire in its frozen uses too. A
    # hook that is bound to a module inside must be bound to the counterpart, so it is copied.
    for name in HOOKS:
        hooks = module.__dict__.get(name)
        if hooks is not None and not any(id(getattr(hook, "__self__", None)) in inside for hook in hooks.values()):
            yield hooks
