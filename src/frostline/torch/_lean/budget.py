"""A memory budget for the tensors kept for backward, met by checkpointing frozen blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from frostline._core.errors import BudgetError, BudgetValueError, UnsupportedError
from frostline.torch._autograd.fake_copy import FakeTensors
from frostline.torch._holding.patch import Patch, patches, remove_all
from frostline.torch._lean.blocks import BlockRecorder, CheckpointBlock, blocks, frozen_modules
from frostline.torch._lean.checkpointed import CheckpointedForward
from frostline.torch._lean.copies import lean_copy, plain_copy

Situation = tuple[Any, ...]

_NEEDS_DATA = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
_EXPRESSION = "lean(model, memory_budget=...)"


@final
class BudgetedForward(Patch):
    """The forward of a model with a budget: it chooses blocks before the first call that builds a graph."""

    def __init__(self, module: nn.Module, budget: float) -> None:
        super().__init__(module)
        self.budget = budget
        self.checkpointed: list[Patch] = []
        self.situation: Situation | None = None
        self.nbytes = 0

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the model's own forward, with the blocks checkpointed that were chosen for such arguments."""
        if torch.is_grad_enabled() and torch._C._functorch.peek_interpreter_stack() is None:
            self._choose_if_changed(args, kwargs)
        return self.__wrapped__(*args, **kwargs)

    def remove(self) -> None:
        """Gives the model and its blocks their own forwards back, in place."""
        self._remove_checkpoints()
        super().remove()

    def _choose_if_changed(self, args: Any, kwargs: Any) -> None:
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        nbytes, situation = sum(t.nbytes for t in tensors), self._situation(tensors)
        if situation == self.situation and nbytes <= self.nbytes:
            return
        self.situation = None
        self._remove_checkpoints()
        try:
            self._choose(args, kwargs)
        except BaseException:
            self._remove_checkpoints()
            raise
        self.situation, self.nbytes = situation, nbytes

    def _remove_checkpoints(self) -> None:
        remove_all(self.checkpointed)
        self.checkpointed = []

    def _situation(self, tensors: list[torch.Tensor]) -> Situation:
        """Returns everything that decides how much is saved, except for the size of the arguments."""
        devices = sorted({t.device.type for t in tensors})
        return (
            tuple(p.requires_grad for p in self.module.parameters()),
            tuple(t.requires_grad for t in tensors),
            tuple(torch.get_autocast_dtype(d) for d in devices if torch.is_autocast_enabled(d)),
            self.module.training,
        )

    def _choose(self, args: Any, kwargs: Any) -> None:
        budget = self.budget
        if isinstance(budget, float):
            budget = math.floor(budget * plain_run(self.module, args, kwargs).nbytes)
        record = lean_run(self.module, args, kwargs, frozen_modules(self.module))
        plain = reachable = record.nbytes
        if plain <= budget:
            return
        for choice in blocks(self.module, record):
            reachable = min(reachable, self._checkpoint(choice, plain, budget, args, kwargs))
            if reachable <= budget:
                return
            self._remove_checkpoints()
        raise BudgetError(budget, reachable, plain)

    def _checkpoint(self, choice: list[CheckpointBlock], plain: int, budget: int, args: Any, kwargs: Any) -> int:
        """Checkpoints blocks in their order until a fake run meets the budget; returns the bytes of the last run."""
        waiting, saved = list(choice), plain
        while saved > budget and waiting:
            promised = saved
            while promised > budget and waiting:
                block = waiting.pop(0)
                promised -= block.freed
                self.checkpointed.append(CheckpointedForward(block.module, is_random=block.is_random))
            saved = lean_run(self.module, args, kwargs).nbytes
        return saved


def plain_run(model: nn.Module, args: Any, kwargs: Any) -> BlockRecorder:
    """The record of a fake run of the model without lean."""
    return _run(model, plain_copy, args, kwargs, ())


def lean_run(model: nn.Module, args: Any, kwargs: Any, followed: Iterable[nn.Module] = ()) -> BlockRecorder:
    """The record of a fake run of the model as it is, with the calls of some of its modules."""
    return _run(model, lean_copy, args, kwargs, followed)


def _run(
    model: nn.Module, copied: Callable[..., nn.Module], args: Any, kwargs: Any, followed: Iterable[nn.Module]
) -> BlockRecorder:
    """Runs the forward of a fake copy under the patch of the budget.

    Raises:
        UnsupportedError: the model reads the values of a tensor, or cannot be copied.
    """
    with _disable_current_modes():
        tensors = FakeTensors((args, kwargs), list(model.parameters()))
        copy = copied(model, tensors, expression=_EXPRESSION)
        args, kwargs = tensors.all_of((args, kwargs))
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        record = BlockRecorder([*copy.parameters(), *copy.buffers(), *leaves])
        for leaf in leaves:
            record.add(leaf)
        modules = dict(zip(model.modules(), copy.modules(), strict=True))
        handles = [handle for module in followed for handle in record.follow(modules[module], module)]
        budgets = (patch for patch in patches(copy) if isinstance(patch, BudgetedForward) and patch.module is copy)
        patch = next(budgets, None)
        forward = copy.forward if patch is None else patch.__wrapped__
        try:
            with tensors.without_data(), record:
                output = forward(*args, **kwargs)
        except _NEEDS_DATA as error:
            raise UnsupportedError(
                _EXPRESSION,
                f"cannot run {type(model).__name__} without data, because it reads the values of a tensor: {error}.",
                "Leave memory_budget out, and checkpoint blocks by hand: checkpoint(block, x, use_reentrant=False).",
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        # Only the graph stays alive, without the results and without values in attributes of the copy.
        record.graph = [t.grad_fn for t in pytree.tree_leaves(output) if isinstance(t, torch.Tensor)]
        for module in list(copy.modules()):
            vars(module).clear()
    return record


def refuse_no_budget(budget: object) -> None:
    """Raises `BudgetValueError` unless the budget is a number of bytes or a fraction."""
    is_bytes = isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1
    is_fraction = isinstance(budget, float) and 0 < budget <= 1
    if not is_bytes and not is_fraction:
        raise BudgetValueError(budget)


def attach(model: nn.Module, budget: float) -> Callable[[], None]:
    """Limits the bytes that a model keeps for backward, in place, by checkpointing frozen blocks.

    A checkpointed block keeps its input and repeats its forward in backward, so that it costs at most as much as if it
    were trained. Gradients are bitwise those of the model without a budget. Blocks are chosen before the first call
    that builds a graph, from a fake run of that call, those with the fewest operations for each freed byte first. They
    are chosen again when the frozen set changes or the arguments grow.

    Args:
        model: the model that is called in training.
        budget: bytes (an int), or a fraction (a float up to 1.0) of the bytes that plain freezing keeps.

    Returns:
        A function that undoes it.

    Raises:
        BudgetValueError: `budget` is neither. A call of the model raises :class:`BudgetError` before it computes
            anything if the budget cannot be met, and :class:`UnsupportedError` if it cannot run without data.

    Source: Chen et al. 2016, https://arxiv.org/abs/1604.06174.

    Example:
        >>> from frostline.torch._lean.budget import attach
        >>> layers = [nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4)) for _ in range(4)]
        >>> model = nn.Sequential(nn.Linear(4, 4), *layers)
        >>> _ = freeze(model, "[1:]")
        >>> detach = attach(model, 0.75)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> detach()
        >>> any("forward" in vars(module) for module in model.modules())
        False
    """
    refuse_no_budget(budget)
    return BudgetedForward(model, budget).remove
