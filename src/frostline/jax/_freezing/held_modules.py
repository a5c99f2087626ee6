"""Held modules: those in which every parameter is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from frostline.jax._uses.layout import Keys, LeafPlace


def held(params: Iterable[LeafPlace], is_still: Callable[[LeafPlace], bool]) -> frozenset[Keys]:
    """The keys of every module that has parameters, all of them frozen.

    Args:
        params: the places of the parameters.
        is_still: whether the parameter at a place is frozen.
    """
    still: set[Keys] = set()
    moving: set[Keys] = set()
    for slot in params:
        (still if is_still(slot) else moving).update(slot.keys[:depth] for depth in range(len(slot.keys)))
    return frozenset(still - moving)


def is_below(keys: Keys, modules: AbstractSet[Keys]) -> bool:
    """Whether a place is below one of the modules. A layer without parameters is held with the module around it."""
    return any(keys[:depth] in modules for depth in range(len(keys)))
