"""Floating-point operations of a step, with where and what for they are done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

NOWHERE = -1


@final
@dataclass(frozen=True)
class Gradient:
    """Work for one gradient.

    Attributes:
        unit: where it is done.
        flops: its operations.
        is_weights: whether it is one with respect to a weight.
        is_of_frozen: whether what it passes has no weight that is trained.
        reach: the last of the trained weights, in the order of their use, that lie above; `NOWHERE` if none does.
    """

    unit: str
    flops: int
    is_weights: bool
    is_of_frozen: bool
    reach: int


@final
@dataclass
class Work:
    """All of it.

    Attributes:
        forward: operations of the forward pass, each with the unit that does them.
        repeated: operations of it that are done again during backward.
        gradients: work for gradients.
    """

    forward: list[tuple[str, int]] = field(default_factory=list)
    repeated: list[tuple[str, int]] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)

    def add(self, other: Work) -> None:
        """Adds that of another function."""
        self.forward += other.forward
        self.repeated += other.repeated
        self.gradients += other.gradients

    @property
    def flops(self) -> int:
        """Operations in all."""
        own = sum(count for _, count in [*self.forward, *self.repeated])
        return own + sum(gradient.flops for gradient in self.gradients)
