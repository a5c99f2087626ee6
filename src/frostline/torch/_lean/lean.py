"""Make what is frozen cheap: the handle, and the mechanisms behind it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Self, final

from torch import nn

from frostline._core.errors import NothingFrozenError
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._holding.forward import patches, remove_all
from frostline.torch._lean import budget as _budget
from frostline.torch._lean import casting as _casting
from frostline.torch._lean import folding as _folding
from frostline.torch._lean import slimming as _slimming

TakeBack = Callable[[], None]
Attach = Callable[[nn.Module], TakeBack]


@final
class Lean:
    """Takes back what :func:`lean` did to a model, in any order with freezing; also a context manager.

    Attributes:
        exact: whether every result is bitwise the one of the model as it was.
        memory_budget: the bytes that may be saved for backward, or a fraction of what was; None is no budget.

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
        """Takes it all back, in place: the model computes and saves as before. Idempotent."""
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
    """Makes the frozen parts of a model cheap, in place, without replacing a module.

    What autograd saves and no remaining gradient reads is dropped or kept in a smaller form, and under
    autocast a frozen weight is cast once. Outputs and gradients are bitwise the same. This follows what
    is frozen: freeze and thaw as ever, before and after. It comes along when the model is copied or
    pickled, and ``lean(copy).undo()`` takes it off a copy. What is compiled is left alone: a compiler
    keeps what it likes, of a frozen convolution too. So is a saved tensor of less than 32 KiB, which is
    not worth two calls of Python in each step.

    Args:
        model: the model; a part of it must be frozen.
        exact: whether every result must be bitwise the one of the model as it is. With False, batch
            norms are also folded into the convolutions before them, where both are frozen.
        memory_budget: what may be saved for backward in a call, in bytes (an int) or as a fraction of
            what plain freezing saves (a float up to 1.0). Frozen blocks are checkpointed, the cheapest
            first, until it holds. None is no budget.

    Returns:
        A handle that takes it back. A later call on the same model, or on one that contains it, takes
        the place of an earlier one.

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
    """What is attached, in this order: the last one lies outermost."""
    mechanisms: list[Attach] = [_slimming.attach, _casting.attach]
    if not exact:
        mechanisms.append(_folding.attach)
    if memory_budget is not None:
        mechanisms.append(partial(_budget.attach, budget=memory_budget))
    return mechanisms


def _take_off(model: nn.Module) -> None:
    """Takes everything lean off a model and its parts, in place."""
    _slimming.detach(model)
    remove_all(patches(model))
