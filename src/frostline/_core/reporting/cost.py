"""The cost of a step: as a model is frozen now, with everything trained, and at the limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from frostline._core import document
from frostline._core.errors.base import counted
from frostline._core.reporting import table
from frostline._core.reporting.bill import Bill, Culprit, UnitCost
from frostline._core.reporting.cost_rows import MOST, rows
from frostline._core.reporting.units import flops, human, percent

if TYPE_CHECKING:
    from rich.console import RenderableType

_TITLES = ("", "forward", "input grad", "weight grad", "saved", "least saved", "gradients", "optimizer", "peak")


@final
@dataclass(frozen=True, repr=False)
class Cost:
    """The cost of a step: it prints as a table, renders in a notebook, and returns plain data.

    The limit is the least that exact gradients need if nothing is computed twice: a forward pass, input gradients down
    to the lowest trainable parameters, weight gradients of the trainable parameters, and only those parts of the saved
    tensors that one of these gradients reads, with masks and pooling indices as bits.

    Attributes:
        units: the cost of each unit without the units below it, in the order of the model.
        now: the cost as the model is frozen.
        all_trained: the cost with every parameter trained.
        limit: the least cost for the parameters that are trainable now.
        culprit: the parameters that make the step expensive, or None.
    """

    units: tuple[UnitCost, ...]
    now: Bill
    all_trained: Bill
    limit: Bill
    culprit: Culprit | None = None

    @property
    def flop_percent(self) -> float:
        """The FLOP limit as a percentage of the FLOPs of a step; 100 is at the limit."""
        return _share(self.limit.flops, self.now.flops)

    @property
    def byte_percent(self) -> float:
        """The byte limit as a percentage of the bytes kept for backward; 100 is at the limit."""
        return _share(self.limit.saved_bytes, self.now.saved_bytes)

    def to_dict(self) -> dict[str, object]:
        """Returns the complete cost as data for JSON."""
        bills = {name: getattr(self, name).to_dict() for name in ("now", "all_trained", "limit")}
        percents = {"flop_percent": round(self.flop_percent, 4), "byte_percent": round(self.byte_percent, 4)}
        culprit = None if self.culprit is None else self.culprit.to_dict()
        units = [unit.to_dict() for unit in self.units]
        return document.stamped("cost", bills | percents | {"culprit": culprit, "units": units})

    def __str__(self) -> str:
        return table.plain(self.__rich__())

    def __repr__(self) -> str:
        return f"<Cost: {_verdict(self)}>"

    def __rich__(self) -> RenderableType:
        rows = [[(name, ""), *((cell, "") for cell in cells)] for name, cells in _rows(self)]
        return table.rendered(_TITLES, rows, _sentences(self), numbers=len(_TITLES) - 1)

    def _repr_html_(self) -> str:
        rows = [table.html_row(table.code(name), cells) for name, cells in _rows(self)]
        return table.page(_TITLES, rows, _sentences(self))


def _share(least: int, spent: int) -> float:
    return 100 * least / spent if spent else 100.0


def _verdict(cost: Cost) -> str:
    return f"{percent(cost.flop_percent)} of the FLOP limit, {percent(cost.byte_percent)} of the byte limit"


def _sentences(cost: Cost) -> Iterator[str]:
    yield f"{_verdict(cost)}."
    if cost.culprit is not None:
        yield from str(cost.culprit).splitlines()


def _rows(cost: Cost) -> Iterator[tuple[str, list[str]]]:
    total = type(cost.now).total
    shown = rows(cost.units)
    for row in shown[:MOST]:
        limit = total(unit.limit for unit in row.units)
        yield row.label, [*_cells(total(unit.now for unit in row.units), human(limit.saved_bytes)), ""]
    if len(shown) > MOST:
        yield f"... and {counted(len(shown) - MOST, 'row')} more", [""] * (len(_TITLES) - 1)
    for name, bill in (("now", cost.now), ("all trained", cost.all_trained), ("limit", cost.limit)):
        yield f"= {name}", [*_cells(bill, ""), human(bill.peak_bytes)]


def _cells(bill: Bill, least_saved: str) -> list[str]:
    operations = (bill.forward_flops, bill.input_gradient_flops, bill.weight_gradient_flops)
    kept = [human(bill.saved_bytes), least_saved, human(bill.gradient_bytes), human(bill.optimizer_bytes)]
    return [*map(flops, operations), *kept]
