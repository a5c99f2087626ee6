"""What of a tree stands still, and what may move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frostline.jax._arrays import ARRAYS, has_bytes, is_param
from frostline.jax._freezing.survey import Survey
from frostline.jax._freezing.whole import is_below
from frostline.jax._uses.slots import Slot


@dataclass(frozen=True)
class Division:
    """The arrays of a tree in two parts, by each of their names.

    Attributes:
        still: what nothing moves: frozen parameters, and all else in modules that are frozen whole; each with
            "parameter" or "buffer".
        moving: the slots of the rest. What is frozen here and trains elsewhere in the tree is in neither part.
    """

    still: dict[str, tuple[Any, str]]
    moving: dict[str, Slot]


def divided(read: Survey) -> Division:
    """The arrays of a tree, as it is frozen."""
    # Numbers of NumPy are values: two that are the same are no tie.
    trained = {id(leaf) for leaf in map(read.leaves.__getitem__, read.trainable) if isinstance(leaf, ARRAYS)}
    still: dict[str, tuple[Any, str]] = {}
    moving: dict[str, Slot] = {}
    for slot in read.layout.slots:
        array = read.leaves[slot.leaf]
        stands = slot.pinned or (slot.marked if is_param(array) else is_below(slot.keys, read.whole))
        if not stands and (is_param(array) or isinstance(array, ARRAYS)):
            moving[slot.name] = slot
        elif stands and has_bytes(array) and id(array) not in trained:
            still[slot.name] = (array, "parameter" if is_param(array) else "buffer")
    return Division(still, moving)
