"""Why something frozen moved: the likeliest cause, from what can still be seen."""

from __future__ import annotations

import gc
from collections import defaultdict
from typing import Any, Protocol

import torch
from torch import nn

from frostline.torch._holding.mode import is_held
from frostline.torch._uses.use import Frozen

Group = tuple[str, int, dict[str, Any]]
"""The class of an optimizer, the number of one of its parameter groups, and the group."""


class Seen(Protocol):
    """What was seen of a tensor before it moved."""

    @property
    def address(self) -> int: ...
    @property
    def version(self) -> int: ...


class Owners:
    """The optimizers of this process, by what they hold.

    Nobody hands an optimizer to the guard, so it looks for them among all objects: once, and only
    when something has moved.
    """

    def __init__(self) -> None:
        optimizers = [o for o in gc.get_objects() if issubclass(type(o), torch.optim.Optimizer)]
        self._groups: dict[int, list[Group]] = defaultdict(list)
        for optimizer in optimizers:
            for number, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    self._groups[id(parameter)].append((type(optimizer).__name__, number, group))

    def of(self, tensor: torch.Tensor) -> list[Group]:
        """The groups that hold a tensor."""
        return self._groups.get(id(tensor), [])


def likely_cause(
    path: str, kind: str, tensor: torch.Tensor, before: Seen, model: nn.Module, owners: Owners
) -> tuple[str, str]:
    """The likely cause of a movement, and the fix as code."""
    if tensor.data_ptr() != before.address:
        return (
            "its storage was replaced (by an assignment, .data = ..., .to(...) or load_state_dict(assign=True))",
            "Write in place under torch.no_grad(), or replace it outside of the guarded block.",
        )
    if kind == "buffer":
        return _statistics(path, model) or _write(path, tensor, before)
    trained = _trained_elsewhere(path, tensor, model)
    return trained or _optimizer(path, tensor, owners) or _write(path, tensor, before)


def _statistics(path: str, model: nn.Module) -> tuple[str, str] | None:
    owner = path.rpartition(".")[0]
    module = model.get_submodule(owner)
    if is_held(module):
        return None
    name, fix = type(module).__name__, f"freeze(model, {owner!r})"
    if module.training:
        return (
            f"statistics: {name} {owner!r} is in training mode and updates them in each call",
            f"{fix} holds it in evaluation mode through every train().",
        )
    return (
        f"statistics or state: {name} {owner!r} was called in training mode, or writes its buffers "
        "in evaluation mode too",
        f"{fix} holds its mode, and keeps its calls from writing.",
    )


def _trained_elsewhere(path: str, tensor: torch.Tensor, model: nn.Module) -> tuple[str, str] | None:
    for module in model.modules():
        if isinstance(module, Frozen) and any(
            slot.constant is tensor and slot.seen is not None and slot.seen.requires_grad for slot in module._view.slots
        ):
            return (
                f"training elsewhere: {path!r} is a frozen use, and the layer itself is trainable",
                "Guard the steps in which the layer is not trained, or freeze the layer itself.",
            )
    return None


def _optimizer(path: str, tensor: torch.Tensor, owners: Owners) -> tuple[str, str] | None:
    for name, number, group in owners.of(tensor):
        decay = group.get("weight_decay") or 0
        if tensor.requires_grad:
            break
        if tensor.grad is not None and bool(tensor.grad.count_nonzero()):
            return (
                f"stale gradient: {name} moves what has a .grad, and this one still has one",
                f"freeze(model, {path!r}) drops it; by hand: parameter.grad = None.",
            )
        if decay:
            return (
                f"decay: {name} decays it, weight_decay={decay} in parameter group {number}",
                f"freeze(model, {path!r}) drops the gradient without which {name} does nothing.",
            )
        return (
            f"momentum: {name} has it in parameter group {number}, with state from before",
            f"freeze(model, {path!r}) drops the gradient without which {name} does nothing.",
        )
    return None


def _write(path: str, tensor: torch.Tensor, before: Seen) -> tuple[str, str]:
    if tensor.requires_grad:
        return (
            "it was thawed: requires_grad is True now, and an optimizer moved it",
            f"freeze(model, {path!r}) again, or look for requires_grad_(True) over the model.",
        )
    if tensor._version != before.version:
        return (
            "in-place write: something wrote into it (copy_, add_, an initialiser, an average)",
            "Look for writes under torch.no_grad() to this parameter.",
        )
    return (
        "in-place write that autograd does not see (.data, NumPy, or a kernel of its own)",
        "Look for writes through .data to this parameter.",
    )
