"""The report of a model: its frozen set with counts and bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, final

from frostline._core import document
from frostline._core.errors import PlanMismatchError
from frostline._core.inventory import Inventory
from frostline._core.plan import Plan
from frostline._core.reporting import table
from frostline._core.reporting.account import Amounts, ReportRow, account
from frostline._core.reporting.cost import Cost
from frostline._core.reporting.outline import OutlineLine, outline
from frostline._core.reporting.units import human

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {"frozen": "cyan", "trainable": "green", "partly": "yellow", "": "dim"}
_COLORS = {"frozen": "#0b7285", "trainable": "#2b8a3e", "partly": "#b35c00", "": "inherit"}


def report(
    inventory: Inventory,
    plan: Plan,
    *,
    optimizer_bytes: Mapping[str, int] | None = None,
    held: frozenset[str] = frozenset(),
) -> Report:
    """Makes the report of a model.

    Args:
        inventory: the model.
        plan: what is frozen in it.
        optimizer_bytes: bytes of the optimizer state of each parameter, by canonical path; None without an optimizer.
        held: paths of the held modules.

    Raises:
        PlanMismatchError: the plan is not one of this model.

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
    """The frozen set of a model: it prints as a table, renders in a notebook, and returns plain data.

    Attributes:
        entries: a row for each name of the model, in pre-order, starting with the model itself.
        has_optimizer: whether the bytes of an optimizer are known.
        cost: the cost of a step, or None.
    """

    entries: tuple[ReportRow, ...]
    has_optimizer: bool
    cost: Cost | None = None

    def with_cost(self, cost: Cost | None) -> Report:
        """Returns the report with the cost of a step below it."""
        return replace(self, cost=cost)

    @property
    def totals(self) -> Amounts:
        """The sums over the whole model."""
        return self.entries[0].amounts

    def to_dict(self) -> dict[str, object]:
        """Returns the complete report as data for JSON."""
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
        return f"<Report: {_summary(self.totals)}>"

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        rows = [_cells(line, self._numbers(line)) for line in outline(self.entries)]
        frozen = table.rendered(self._titles, rows, [_summary(self.totals)], numbers=len(self._titles) - 3)
        return frozen if self.cost is None else Group(frozen, "", self.cost)

    def _repr_html_(self) -> str:
        rows = [_html(line, self._numbers(line)) for line in outline(self.entries)]
        frozen = table.page(self._titles, rows, [_summary(self.totals)])
        return frozen if self.cost is None else frozen + self.cost._repr_html_()

    @property
    def _titles(self) -> Sequence[str]:
        return ["", "params", "frozen", "memory", *(["optimizer"] if self.has_optimizer else []), "state", ""]

    def _numbers(self, line: OutlineLine) -> list[str]:
        amounts = line.amounts
        cells = [f"{amounts.params:,}", f"{amounts.frozen_params:,}", human(amounts.bytes)]
        return [*cells, human(amounts.optimizer_bytes)] if self.has_optimizer else cells


def _summary(amounts: Amounts) -> str:
    """Returns the totals in one sentence."""
    trainable = amounts.params - amounts.frozen_params
    share = f"{100 * trainable / amounts.params:.1f}%" if amounts.params else "0%"
    size = f"{human(amounts.bytes - amounts.frozen_bytes)} of {human(amounts.bytes)}"
    return f"{trainable:,} of {amounts.params:,} params are trainable ({share}; {size})."


def _cells(line: OutlineLine, numbers: Sequence[str]) -> list[table.Cell | Sequence[table.Cell]]:
    name = [(line.guide, "dim"), (line.label, ""), ("  " + line.kind if line.kind else "", "dim")]
    return [name, *((number, "") for number in numbers), (line.state, _STYLES[line.state]), (line.note, "dim")]


def _html(line: OutlineLine, numbers: Sequence[str]) -> str:
    guide = escape(line.guide).replace(" ", "&nbsp;")
    name = f"<code>{guide}{escape(line.label)}</code> <small>{escape(line.kind)}</small>"
    state = f"<td style='color:{_COLORS[line.state]}'>{escape(line.state)}</td><td>{escape(line.note)}</td>"
    return table.html_row(name, numbers, state)
