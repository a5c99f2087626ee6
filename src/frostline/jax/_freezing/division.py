"""The arrays of a tree, divided into those that no step moves and those that it may move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frostline.jax._arrays import ARRAYS, has_bytes, is_param
from frostline.jax._freezing.held_modules import is_below
from frostline.jax._freezing.survey import Survey
from frostline.jax._uses.layout import LeafPlace


@dataclass(frozen=True)
class Division:
    """The arrays of a tree in two parts, under each of their names.

    A tied array that is frozen under one name and trains under another is in neither part under the frozen name.

    Attributes:
        still: frozen parameters and all other arrays in held modules; each with "parameter" or "buffer".
        moving: the places of the rest.
    """

    still: dict[str, tuple[Any, str]]
    moving: dict[str, LeafPlace]


def divided(read: Survey) -> Division:
    """Divides the arrays of a tree."""
    still: dict[str, tuple[Any, str]] = {}
    moving: dict[str, LeafPlace] = {}
    for slot in read.layout.slots:
        array = read.leaves[slot.leaf]
        stands = slot.pinned or (slot.marked if is_param(array) else is_below(slot.keys, read.whole))
        if not stands and (is_param(array) or isinstance(array, ARRAYS)):
            moving[slot.name] = slot
        elif stands and has_bytes(array) and slot.leaf not in read.trainable:
            still[slot.name] = (array, "parameter" if is_param(array) else "buffer")
    return Division(still, moving)
