"""The cost of a step or of one unit, and the culprit that makes gradients pass through frozen units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import final

from frostline._core.reporting.units import flops


@final
@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of one training step. A multiplication and an addition are two floating-point operations.

    Attributes:
        forward_flops: operations of the forward pass, including parts that are recomputed during backward.
        input_gradient_flops: operations for gradients with respect to activations.
        weight_gradient_flops: operations for gradients with respect to parameters.
        saved_bytes: bytes kept for backward, without parameters and buffers; each storage counts once.
        gradient_bytes: bytes of the gradients of parameters.
        optimizer_bytes: bytes of the optimizer state.
        peak_bytes: the largest number of bytes during a step; only for a whole model.
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
        """Returns the bill as data for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def total(cls, bills: Iterable[Bill]) -> Bill:
        """Returns the sum of bills; it has no peak, because peaks do not add.

        Example:
            >>> from frostline._core.reporting.bill import Bill
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
    """The cost of one unit, without the units below it. All units of a model add up to its bill.

    Attributes:
        path: its dotted path; "" is the model itself, with the loss.
        kind: the name of its class, or "".
        now: the cost as the model is frozen.
        all_trained: the cost with every parameter trained.
        limit: the least cost for the gradients of the trainable parameters.
    """

    path: str
    kind: str
    now: Bill
    all_trained: Bill
    limit: Bill

    def to_dict(self) -> dict[str, object]:
        """Returns the unit as data for JSON."""
        bills = {name: getattr(self, name).to_dict() for name in ("now", "all_trained", "limit")}
        return {"path": self.path, "kind": self.kind} | bills


@final
@dataclass(frozen=True, slots=True)
class Culprit:
    """Trainable parameters near the input that make the gradient pass through frozen units.

    Attributes:
        paths: the parameters, in the order in which the model uses them.
        chain_flops: operations for input gradients of frozen units that only these parameters need.
        flops: operations of a step as the model is frozen now.
        flops_without: operations of a step with these parameters frozen, too.
        fix: the code that freezes them.
    """

    paths: tuple[str, ...]
    chain_flops: int
    flops: int
    flops_without: int
    fix: str

    @property
    def ratio(self) -> float:
        """The operations of a step divided by those without the culprit."""
        return self.flops / self.flops_without

    def to_dict(self) -> dict[str, object]:
        """Returns the culprit as data for JSON."""
        numbers = {name: getattr(self, name) for name in ("chain_flops", "flops", "flops_without")}
        return {"paths": list(self.paths), **numbers, "ratio": round(self.ratio, 4), "fix": self.fix}

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.paths[:3]))
        rest = len(self.paths) - 3
        named += f" and {rest} more" if rest > 0 else ""
        verb = "makes" if len(self.paths) == 1 else "make"
        chain = f"{verb} the gradient pass through frozen units: {flops(self.chain_flops)} FLOPs a step"
        return f"{named} {chain}, {self.ratio:.2f} × what it would cost without.\n{self.fix}"
