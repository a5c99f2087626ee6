"""One layer, trained by one model and constant in another: freezing belongs to a use of a layer, not to the layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Gradients:
    """The norms of two gradients through one use of a layer.

    Attributes:
        weight: with respect to the layer's weight; None if there is no gradient at all.
        input: with respect to what goes into the layer.
    """

    weight: float | None
    input: float


@final
@dataclass(frozen=True)
class Sharing:
    """What one layer does in ``m0``, made of ``l1, l2, l3``, and in ``m1``, made of ``l1, Frozen(l2), l3``.

    Attributes:
        m0: the gradients through the model that trains the layer.
        m1: the gradients through the model that holds it still.
        values: how many values the layer's weight has.
        changed_by_m0: how many of them a step of `m0` changes.
        changed_by_m1: how many of them a step of `m1` changes.
        seen_by_m1: how far a step of `m0` moves what the frozen use computes, at most.
    """

    m0: Gradients
    m1: Gradients
    values: int
    changed_by_m0: int
    changed_by_m1: int
    seen_by_m1: float
