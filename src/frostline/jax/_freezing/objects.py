"""Where in a tree the objects are that a user points at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from frostline.jax._arrays import ARRAYS
from frostline.jax._freezing.marked import bare
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._uses.slots import Keys, Slot, children, keys_of
from frostline.jax._uses.window import inner_of, is_window


@dataclass(frozen=True)
class Objects:
    """The modules and arrays of a tree, to be found by what they are.

    Arrays are found by identity. A tree that is seen through its marks makes its nodes anew, but not its arrays: a node
    is the one that is meant where it has the same arrays in the same places.

    Attributes:
        read: the tree.
    """

    read: Survey

    def paths(self, wanted: Any) -> list[str]:
        """The names of all places at which an object is; none, if it is not in the tree."""
        part = survey(inner_of(wanted))
        arrays = (slot for slot in part.layout.slots if isinstance(part.leaves[slot.leaf], ARRAYS))
        first = next(arrays, None)
        if first is None:
            return list(_identical(part.tree, bare(self.read.tree), ()))
        depth = len(first.keys)
        found = self._at.get(id(part.leaves[first.leaf]), ())
        roots = (
            slot.keys[: len(slot.keys) - depth] for slot in found if slot.keys[len(slot.keys) - depth :] == first.keys
        )
        return [".".join(root) for root in roots if self._is_at(part, root)]

    def _is_at(self, part: Survey, root: Keys) -> bool:
        slots, nodes = part.layout.slots, part.layout.nodes
        return (
            len(slots) == self._sizes[root]
            and all(self._owners.get(root + node.keys) is node.owner for node in nodes)
            and all(self._has(root + slot.keys, part.leaves[slot.leaf]) for slot in slots)
        )

    def _has(self, keys: Keys, leaf: Any) -> bool:
        slot = self._slots.get(keys)
        return slot is not None and (not isinstance(leaf, ARRAYS) or self.read.leaves[slot.leaf] is leaf)

    @cached_property
    def _at(self) -> dict[int, tuple[Slot, ...]]:
        return {id(self.read.leaves[group[0].leaf]): group for group in self.read.arrays}

    @cached_property
    def _slots(self) -> dict[Keys, Slot]:
        return {slot.keys: slot for slot in self.read.layout.slots}

    @cached_property
    def _owners(self) -> dict[Keys, type]:
        return {node.keys: node.owner for node in self.read.layout.nodes}

    @cached_property
    def _sizes(self) -> Counter[Keys]:
        """How many leaves are at each place or below it."""
        return Counter(slot.keys[:depth] for slot in self.read.layout.slots for depth in range(len(slot.keys) + 1))


def _identical(wanted: Any, node: Any, keys: Keys) -> Iterator[str]:
    if node is wanted:
        yield ".".join(keys)
    elif is_window(node):
        yield from _identical(wanted, inner_of(node), keys)
    else:
        for key, child in children(node) or ():
            yield from _identical(wanted, child, keys + keys_of(key))
