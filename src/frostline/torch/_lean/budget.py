"""Keep what is saved for backward to a budget, by checkpointing frozen blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import nn
from torch.utils import _pytree as pytree

from frostline._core.errors import BudgetError, BudgetValueError
from frostline.torch._autograd.fake_run import Recorder, rehearse
from frostline.torch._holding.forward import Patch, bare, remove_all
from frostline.torch._lean.blocks import Block, blocks, frozen_modules
from frostline.torch._lean.checkpointed import CheckpointedForward

Situation = tuple[Any, ...]


@final
class BudgetedForward(Patch):
    """Stands in for the forward of a model: before the first call that builds a graph it chooses blocks."""

    def __init__(self, module: nn.Module, budget: float) -> None:
        super().__init__(module)
        self.budget = budget
        self.checkpointed: list[Patch] = []
        self.situation: Situation | None = None
        self.nbytes = 0

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward, with blocks checkpointed that were chosen for arguments like these."""
        if torch.is_grad_enabled() and torch._C._functorch.peek_interpreter_stack() is None:
            self._settle(args, kwargs)
        return self.__wrapped__(*args, **kwargs)

    def remove(self) -> None:
        """Gives the model and its blocks their forwards back, in place."""
        self._take_off()
        super().remove()

    def _settle(self, args: Any, kwargs: Any) -> None:
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        nbytes, situation = sum(t.nbytes for t in tensors), self._situation(tensors)
        if situation == self.situation and nbytes <= self.nbytes:
            return
        self.situation = None
        self._take_off()
        try:
            self._choose(args, kwargs)
        except BaseException:
            self._take_off()
            raise
        self.situation, self.nbytes = situation, nbytes

    def _take_off(self) -> None:
        remove_all(self.checkpointed)
        self.checkpointed = []

    def _situation(self, tensors: list[torch.Tensor]) -> Situation:
        """What decides, beside the size of the arguments, how much is saved."""
        devices = sorted({t.device.type for t in tensors})
        return (
            tuple(p.requires_grad for p in self.module.parameters()),
            tuple(t.requires_grad for t in tensors),
            tuple(torch.get_autocast_dtype(d) for d in devices if torch.is_autocast_enabled(d)),
            self.module.training,
        )

    def _choose(self, args: Any, kwargs: Any) -> None:
        def run(watched: Iterable[nn.Module] = ()) -> Recorder:
            return rehearse(self.module, self.__wrapped__, args, kwargs, watched)

        budget = self.budget
        if isinstance(budget, float):
            budget = math.floor(budget * rehearse(self.module, _bare(self.__wrapped__), args, kwargs).nbytes)
        recorder = run(frozen_modules(self.module))
        plain = reachable = recorder.nbytes
        if plain <= budget:
            return
        for choice in blocks(self.module, recorder):
            reachable = min(reachable, self._checkpoint(choice, plain, budget, lambda: run().nbytes))
            if reachable <= budget:
                return
            self._take_off()
        raise BudgetError(budget, reachable, plain)

    def _checkpoint(self, choice: list[Block], plain: int, budget: int, measured: Callable[[], int]) -> int:
        """Checkpoints blocks in their order until what is measured holds the budget; returns what is measured."""
        waiting, saved = list(choice), plain
        while saved > budget and waiting:
            promised = saved
            while promised > budget and waiting:
                block = waiting.pop(0)
                promised -= block.freed
                self.checkpointed.append(CheckpointedForward(block.module, is_random=block.is_random))
            saved = measured()
        return saved


def _bare(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward as it is without what makes it cheap."""

    def run(*args: Any, **kwargs: Any) -> Any:
        # What is packed by one hook leaves no room for the hooks of slimming.
        with bare(), torch.autograd.graph.saved_tensors_hooks(_same, _same):
            return forward(*args, **kwargs)

    return run


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def refuse_no_budget(budget: object) -> None:
    """Raises `BudgetValueError` for what is neither bytes nor a fraction."""
    is_bytes = isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1
    is_fraction = isinstance(budget, float) and 0 < budget <= 1
    if not is_bytes and not is_fraction:
        raise BudgetValueError(budget)


def attach(model: nn.Module, budget: float) -> Callable[[], None]:
    """Keeps what a model saves for backward to a budget, in place, by checkpointing frozen blocks.

    A frozen block that an input gradient flows through keeps its input and computes the rest again in backward:
    at most the forward of the block more, which makes it cost what it would cost if it were trained. Gradients are
    bitwise those of the model as it is. Blocks are chosen before the first call that builds a graph, from a
    rehearsal of that call with fake tensors, those with the fewest operations for each byte first; and chosen anew
    when something was frozen or thawed, or the arguments are larger than they were.

    Args:
        model: what is called in training.
        budget: bytes (an int), or a fraction (a float up to 1.0) of what plain freezing saves for backward.

    Returns:
        What takes it back.

    Raises:
        BudgetValueError: `budget` is neither. A call of the model raises :class:`BudgetError` before it computes
            anything, if the budget cannot be met, and :class:`UnsupportedError`, if it cannot be rehearsed.

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
