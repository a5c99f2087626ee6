"""What a step costs: as a model is frozen now, with all of it trained, and at the limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import final

from rich.console import RenderableType

from frostline._core import document
from frostline._core.reporting import cost_table, table


@final
@dataclass(frozen=True, slots=True)
class Bill:
    """What one training step costs. A multiplication and an addition are two floating-point operations.

    Attributes:
        forward_flops: operations of the forward pass, and of parts of it that are computed again during backward.
        input_gradient_flops: operations for gradients with respect to what flows through the model.
        weight_gradient_flops: operations for gradients with respect to parameters.
        saved_bytes: what the forward pass keeps for backward, parameters and buffers aside, each storage once.
        gradient_bytes: gradients of parameters.
        optimizer_bytes: what the optimizer keeps for parameters.
        peak_bytes: all that is there at the highest point of a step. For a model, not for its units.
    """

    forward_flops: int = 0
    input_gradient_flops: int = 0
    weight_gradient_flops: int = 0
    saved_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_bytes: int = 0
    peak_bytes: int = 0

    @property
    def flops(self) -> int:
        """Operations of a whole step."""
        return self.forward_flops + self.input_gradient_flops + self.weight_gradient_flops

    def to_dict(self) -> dict[str, int]:
        """The bill as JSON-able data."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def total(cls, bills: Iterable[Bill]) -> Bill:
        """The sum of bills; peaks do not add, so it has none.

        Example:
            >>> from frostline._core.reporting.cost import Bill
            >>> Bill.total([Bill(forward_flops=2, peak_bytes=9), Bill(forward_flops=3, saved_bytes=4)])
            Bill(forward_flops=5, input_gradient_flops=0, weight_gradient_flops=0, saved_bytes=4, gradient_bytes=0,
                 optimizer_bytes=0, peak_bytes=0)
        """
        columns = zip(*(bill.to_dict().values() for bill in (cls(), *bills)), strict=True)
        *sums, _ = map(sum, columns)
        return cls(*sums)


@final
@dataclass(frozen=True, slots=True)
class UnitCost:
    """What belongs to one unit itself, without the units below it. All units of a model add up to its bill.

    Attributes:
        path: its dotted path; "" is what the model does itself, and the loss.
        kind: the name of its class, or "".
        now: as the model is frozen.
        all_trained: with every parameter trained.
        limit: the least that the gradients of what is trainable now need.
    """

    path: str
    kind: str
    now: Bill
    all_trained: Bill
    limit: Bill

    def to_dict(self) -> dict[str, object]:
        """The unit as JSON-able data."""
        bills = {name: getattr(self, name).to_dict() for name in ("now", "all_trained", "limit")}
        return {"path": self.path, "kind": self.kind} | bills


@final
@dataclass(frozen=True, slots=True)
class Culprit:
    """Trainable tensors near the input for which a gradient must pass through frozen units that need none otherwise.

    Attributes:
        paths: the tensors, in the order in which the model uses them.
        chain_flops: operations for input gradients of frozen units that are done for these tensors alone.
        flops: operations of a step as the model is frozen now.
        flops_without: operations of a step with these tensors frozen too.
        fix: what to write to be rid of the chain.
    """

    paths: tuple[str, ...]
    chain_flops: int
    flops: int
    flops_without: int
    fix: str

    @property
    def ratio(self) -> float:
        """How much dearer a step is for them: 1.5 is half as much again."""
        return self.flops / self.flops_without

    def to_dict(self) -> dict[str, object]:
        """The culprit as JSON-able data."""
        numbers = {name: getattr(self, name) for name in ("chain_flops", "flops", "flops_without")}
        return {"paths": list(self.paths), **numbers, "ratio": round(self.ratio, 4), "fix": self.fix}

    def __str__(self) -> str:
        return cost_table.accusation(self)


@final
@dataclass(frozen=True, repr=False)
class Cost:
    """What a step costs: prints as a table, is a table in a notebook, and gives plain data.

    The limit is what exact gradients need at least, if nothing is computed twice: a forward pass, input gradients
    down to the lowest trainable parameters, weight gradients of the trainable ones; and of the saved tensors only
    what one of these gradients reads, masks and pooling positions as bits.

    Attributes:
        units: in the order of the model; each has what belongs to itself, so that they add up.
        now: as the model is frozen.
        all_trained: with every parameter trained.
        limit: the least for what is trainable now.
        culprit: the tensors that make the step dear, or None.
    """

    units: tuple[UnitCost, ...]
    now: Bill
    all_trained: Bill
    limit: Bill
    culprit: Culprit | None = None

    @property
    def flop_percent(self) -> float:
        """How close a step is to the FLOP limit: 100 is there."""
        return _percent(self.limit.flops, self.now.flops)

    @property
    def byte_percent(self) -> float:
        """How close what is saved for backward is to the byte limit: 100 is there."""
        return _percent(self.limit.saved_bytes, self.now.saved_bytes)

    def to_dict(self) -> dict[str, object]:
        """The cost as JSON-able data: nothing is folded or left out."""
        bills = {name: getattr(self, name).to_dict() for name in ("now", "all_trained", "limit")}
        percents = {"flop_percent": round(self.flop_percent, 4), "byte_percent": round(self.byte_percent, 4)}
        culprit = None if self.culprit is None else self.culprit.to_dict()
        units = [unit.to_dict() for unit in self.units]
        return document.stamped("cost", bills | percents | {"culprit": culprit, "units": units})

    def __str__(self) -> str:
        return table.plain(self.__rich__())

    def __repr__(self) -> str:
        return f"<Cost: {cost_table.verdict(self)}>"

    def __rich__(self) -> RenderableType:
        return cost_table.rendered(self)

    def _repr_html_(self) -> str:
        return cost_table.page(self)


def _percent(least: int, spent: int) -> float:
    return 100 * least / spent if spent else 100.0
