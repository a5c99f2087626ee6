"""The report of the frozen set of a model, as a tree."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from frostline._core.reporting.cost import Cost
from frostline._core.reporting.report import Report
from frostline._core.reporting.report import report as report_of
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import survey
from frostline.torch._holding.mode import is_held
from frostline.torch._training.moments import state_bytes


def report(model: nn.Module, optimizer: Optimizer | None = None, *, cost: Cost | None = None) -> Report:
    """Returns the frozen set of a model, as a tree with counts and bytes.

    It prints as a table, renders in a notebook, and ``.to_dict()`` returns plain data.

    Args:
        model: the model.
        optimizer: if given, the report also shows the bytes of its state for each parameter.
        cost: if given, the report shows the cost of a step below the tree: ``report(model, cost=cost(model, x))``.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> _ = freeze(model, "0")
        >>> report(model).to_dict()["totals"]["frozen_params"]
        40
    """
    read = survey(model)
    sizes = None
    if optimizer is not None:
        sizes = {path: state_bytes(optimizer, tensor) for path, tensor in read.parameters.items()}
    held = frozenset(path for path, module in read.modules.items() if is_held(module))
    return report_of(read.inventory, plan_of(read), optimizer_bytes=sizes, held=held).with_cost(cost)
