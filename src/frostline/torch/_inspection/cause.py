"""Finding the likely cause of a movement."""

from __future__ import annotations

import gc
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from frostline.torch._holding.mode import is_held
from frostline.torch._tensors import addresses, versions
from frostline.torch._uses.use import Frozen
from frostline.torch._wrappers import wrappers

Group = tuple[str, int, dict[str, Any]]
"""The class of an optimizer, the number of one of its parameter groups, and the group."""


class Owners:
    """The optimizers of this process, by the tensors that they hold.

    The guard gets no optimizer, so it searches all objects for optimizers: once, and only
    after a movement.
    """

    def __init__(self) -> None:
        self._groups: dict[int, list[Group]] = defaultdict(list)
        for optimizer in [o for o in gc.get_objects() if issubclass(type(o), torch.optim.Optimizer)]:
            for number, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    self._groups[id(parameter)].append((type(optimizer).__name__, number, group))

    def of(self, tensor: torch.Tensor) -> list[Group]:
        """Returns the groups that hold a tensor."""
        return self._groups.get(id(tensor), [])


@dataclass(frozen=True)
class Lay:
    """Where the parts of a tensor lie in this process, and their versions."""

    addresses: tuple[int, ...]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Lay:
        """Reads it."""
        return cls(addresses(tensor), versions(tensor))


def likely_cause(
    path: str, kind: str, tensor: torch.Tensor, model: nn.Module, owners: Owners, before: Lay
) -> tuple[str, str]:
    """Returns the likely cause of a movement, and the fix as code.

    Args:
        path: the path of the tensor that moved.
        kind: "parameter" or "buffer".
        tensor: the tensor as it is now.
        model: the model it belongs to.
        owners: the optimizers.
        before: where it lay when it was first read, and its versions.
    """
    now = Lay.of(tensor)
    if now.addresses != before.addresses:
        return (
            "its storage was replaced (by an assignment, .data = ..., .to(...) or load_state_dict(assign=True))",
            "Write in place under torch.no_grad(), or replace it outside of the guarded block.",
        )
    if kind == "buffer":
        cause = _statistics(path, model) or _broadcast(tensor, model)
    else:
        cause = _trained_elsewhere(path, tensor, model) or _optimizer(path, tensor, owners)
    if cause is not None:
        return cause
    if tensor.requires_grad:
        return (
            "it was thawed: requires_grad is True now, and an optimizer moved it",
            f"freeze(model, {path!r}) again, or look for requires_grad_(True) over the model.",
        )
    if now.versions != before.versions:
        return (
            "in-place write: something wrote into it (copy_, add_, an initialiser, an average)",
            "Look for writes under torch.no_grad() to this parameter.",
        )
    return (
        "in-place write that autograd does not see (.data, NumPy, or a kernel of its own)",
        "Look for writes through .data to this parameter.",
    )


def _broadcast(tensor: torch.Tensor, model: nn.Module) -> tuple[str, str] | None:
    """A data-parallel wrapper copies the buffers of rank 0 to the other ranks, held ones too."""
    around = (each for _, each in wrappers(model, [tensor]) if isinstance(each, DistributedDataParallel))
    wrapper = next((each for each in around if each.broadcast_buffers), None)
    if wrapper is None or dist.get_rank(wrapper.process_group) == 0:
        return None
    name = type(wrapper).__name__
    return (
        f"{name} copied it from rank 0 at the beginning of a call, and the ranks had different values",
        f"Make them equal before the guarded block: rewrap(ddp); or wrap with {name}(model, broadcast_buffers=False).",
    )


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
    slots = (
        slot for module in model.modules() if isinstance(module, Frozen) for slot in module._view.counterparts.slots
    )
    if any(slot.constant is tensor and slot.seen is not None and slot.seen.requires_grad for slot in slots):
        return (
            f"training elsewhere: {path!r} is a frozen use, and the layer itself is trainable",
            "Guard the steps in which the layer is not trained, or freeze the layer itself.",
        )
    return None


def _optimizer(path: str, tensor: torch.Tensor, owners: Owners) -> tuple[str, str] | None:
    groups = owners.of(tensor)
    if tensor.requires_grad or not groups:
        return None
    name, number, group = groups[0]
    if tensor.grad is not None and bool(tensor.grad.count_nonzero()):
        return (
            f"stale gradient: {name} moves what has a .grad, and this one still has one",
            f"freeze(model, {path!r}) drops it; by hand: parameter.grad = None.",
        )
    cause = f"momentum: {name} has it in parameter group {number}, with state from before"
    if decay := group.get("weight_decay"):
        cause = f"decay: {name} decays it, weight_decay={decay} in parameter group {number}"
    return cause, f"freeze(model, {path!r}) drops the gradient without which {name} does nothing."
