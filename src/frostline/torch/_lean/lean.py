"""Lean models, whose frozen parts keep less for backward: `lean`, its handle and its mechanisms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self, final

from torch import nn

from frostline._core.errors import NothingFrozenError
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._holding.patch import patches, remove_all
from frostline.torch._lean import budget as _budget
from frostline.torch._lean import casting as _casting
from frostline.torch._lean import folding as _folding
from frostline.torch._lean import slimming as _slimming

TakeBack = Callable[[], None]
Attach = Callable[[nn.Module], TakeBack]


@final
class Lean:
    """The handle of :func:`lean`: undoes it, in any order with freezing; also a context manager.

    Attributes:
        exact: whether every result is bitwise that of the model before.
        memory_budget: the bytes that may be kept for backward, or a fraction of those kept before, or None.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 3))
        >>> _ = freeze(model, "1")
        >>> with lean(model) as handle:
        ...     handle
        Lean(exact=True, memory_budget=None)
        >>> handle
        Lean(exact=True, memory_budget=None, undone)
    """

    def __init__(self, ways_back: list[TakeBack], *, exact: bool, memory_budget: float | None) -> None:
        self.exact = exact
        self.memory_budget = memory_budget
        self._ways_back = ways_back

    def undo(self) -> None:
        """Undoes all changes, in place: the model computes and saves as before. Idempotent."""
        while self._ways_back:
            self._ways_back.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        undone = "" if self._ways_back else ", undone"
        return f"Lean(exact={self.exact}, memory_budget={self.memory_budget}{undone})"


def lean(model: nn.Module, *, exact: bool = True, memory_budget: float | None = None) -> Lean:
    """Makes the frozen parts of a model keep less for backward, in place, without replacing a module.

    A saved tensor that no remaining gradient reads is dropped or kept in a smaller form, and under autocast a frozen
    weight is cast once. Outputs and gradients are bitwise the same. This follows the frozen set: freeze and thaw as
    usual, before and after. It is copied and pickled with the model, and ``lean(copy).undo()`` removes it from a copy.
    It has no effect on a compiled model, because the compiler chooses the saved tensors. A saved tensor of less than
    32 KiB does not change: it is not worth two Python calls in each step.

    Args:
        model: the model; a part of it must be frozen.
        exact: whether every result must be bitwise that of the model before. With False, frozen batch norms are also
            folded into the frozen convolutions before them.
        memory_budget: the bytes that a call may keep for backward (an int), or a fraction of those that plain freezing
            keeps (a float up to 1.0). Frozen blocks are checkpointed, the cheapest first, until the budget is met.

    Returns:
        A handle that undoes it. A later call on the same model, or on one that contains it, replaces an earlier one.

    Raises:
        TypeError: `model` is not an ``nn.Module``.
        NothingFrozenError: nothing is frozen.
        BudgetValueError: `memory_budget` is neither bytes nor a fraction. A call of the model raises
            `BudgetError`, before it computes anything, if the budget cannot be met.

    Source: slimming after Bhatia and Dangel 2024, https://arxiv.org/abs/2404.12406, on nodes of the graph
    in place of modules.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
        >>> _ = freeze(model, "2")
        >>> handle = lean(model)
        >>> y = model(torch.zeros(1, 3, 66, 66))
        >>> y.grad_fn._raw_saved_input.data[0]  # its shape, and no value
        torch.Size([1, 8, 64, 64])
        >>> handle.undo()
    """
    read = survey(model)
    if not plan_of(read).frozen:
        raise NothingFrozenError("lean(model)", len(read.inventory.params), 'freeze(model, "encoder")')
    if memory_budget is not None:
        _budget.refuse_no_budget(memory_budget)
    _take_off(read.root)
    ways_back = [attach(read.root) for attach in _mechanisms(exact=exact, memory_budget=memory_budget)]
    return Lean(ways_back, exact=exact, memory_budget=memory_budget)


def _mechanisms(*, exact: bool, memory_budget: float | None) -> list[Attach]:
    """The mechanisms to attach, in order; the last one is outermost."""
    mechanisms: list[Attach] = [_slimming.attach, _casting.attach]
    if not exact:
        mechanisms.append(_folding.attach)
    if memory_budget is not None:
        mechanisms.append(partial(_budget.attach, budget=memory_budget))
    return mechanisms


def _take_off(model: nn.Module) -> None:
    """Removes everything that `lean` attached to a model and its parts, in place."""
    _slimming.detach(model)
    remove_all(patches(model))
