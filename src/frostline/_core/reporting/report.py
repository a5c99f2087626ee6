"""What is frozen in a model, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

from rich.console import Group, RenderableType

from frostline._core import document
from frostline._core.errors import PlanMismatchError
from frostline._core.inventory import Inventory
from frostline._core.plan import Plan
from frostline._core.reporting import table
from frostline._core.reporting.account import Amounts, Entry, account
from frostline._core.reporting.cost import Cost
from frostline._core.reporting.outline import outline


def report(
    inventory: Inventory,
    plan: Plan,
    *,
    optimizer_bytes: Mapping[str, int] | None = None,
    held: frozenset[str] = frozenset(),
) -> Report:
    """What `plan` freezes in a model.

    Args:
        inventory: the model.
        plan: what is frozen in it.
        optimizer_bytes: bytes that an optimizer keeps for each parameter, by canonical path; None if there is none.
        held: paths of the modules that are held whole, with their mode and their buffers.

    Raises:
        PlanMismatchError: the plan does not speak of this model.

    Example:
        >>> from frostline._core.param import Param
        >>> from frostline._core.reporting.report import report
        >>> body, head = Param("body.weight", (2, 3), "float32", 4), Param("head.weight", (2,), "float32", 4)
        >>> print(report(Inventory((body, head)), Plan(frozenset({"body.weight"}), frozenset({"head.weight"}))))
                 params  frozen  memory  state
        model         8       6    32 B  partly
        ├─ body       6       6    24 B  frozen
        └─ head       2       0     8 B  trainable
        2 of 8 params are trainable (25.0%; 8 B of 32 B).
    """
    if plan.paths != inventory.paths:
        raise PlanMismatchError(plan.paths - inventory.paths, inventory.paths - plan.paths)
    entries = account(inventory, plan, optimizer_bytes or {}, held)
    return Report(entries, has_optimizer=optimizer_bytes is not None)


@final
@dataclass(frozen=True, repr=False)
class Report:
    """What is frozen in a model: prints as a table, is a table in a notebook, and gives plain data.

    Attributes:
        entries: one for each name of the model, in pre-order, the model itself first.
        has_optimizer: whether bytes of an optimizer are known.
        cost: what a step costs, if that was asked for.
    """

    entries: tuple[Entry, ...]
    has_optimizer: bool
    cost: Cost | None = None

    def with_cost(self, cost: Cost | None) -> Report:
        """The report with what a step costs below it."""
        return replace(self, cost=cost)

    @property
    def totals(self) -> Amounts:
        """The sums over the whole model."""
        return self.entries[0].amounts

    def to_dict(self) -> dict[str, object]:
        """The report as JSON-able data: nothing is folded or left out."""
        totals = self.entries[0].to_dict()
        params, frozen = self.totals.params, self.totals.frozen_params
        totals["trainable_percent"] = round(100 * (params - frozen) / params, 4) if params else 0.0
        fields: dict[str, object] = {"totals": totals, "entries": [entry.to_dict() for entry in self.entries[1:]]}
        if self.cost is not None:
            fields["cost"] = self.cost.to_dict()
        return document.stamped("report", fields)

    def __str__(self) -> str:
        return table.plain(self.__rich__())

    def __repr__(self) -> str:
        return f"<Report: {table.summary(self.totals)}>"

    def __rich__(self) -> RenderableType:
        frozen = table.rendered(outline(self.entries), self.totals, optimizer=self.has_optimizer)
        return frozen if self.cost is None else Group(frozen, "", self.cost)

    def _repr_html_(self) -> str:
        frozen = table.page(outline(self.entries), self.totals, optimizer=self.has_optimizer)
        return frozen if self.cost is None else frozen + self.cost._repr_html_()
