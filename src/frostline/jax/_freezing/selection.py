"""From the arguments of a verb to paths: strings, selector values, and objects of the tree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, ValuesView
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from frostline._core.errors import NoMatchError, SelectorError
from frostline._core.plan import Plan
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.refusal import not_a_selector
from frostline._core.selecting.resolve import resolve
from frostline._core.selecting.selectors import at
from frostline.jax._arrays import ARRAYS
from frostline.jax._freezing.marked import bare
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._uses.layout import Keys, LeafPlace, children, keys_of
from frostline.jax._uses.window import inner_of, is_window


def select(choices: Sequence[Any], read: Survey, *, expect: int | None, allow_empty: bool) -> frozenset[str]:
    """The paths in the tree that the choices name.

    Raises:
        NoMatchError: a choice names nothing, or is not part of the tree.
        SelectorError: a choice is not a selector.
    """
    objects = Objects(read)
    selectors = [selector for choice in choices for selector in _selectors(choice, objects)]
    return resolve(selectors, read.inventory, expect=expect, allow_empty=allow_empty)


def written(first: str, choices: Sequence[Any]) -> str:
    """Arguments as their author wrote them, as far as that is known."""
    labels = (repr(c) if isinstance(c, str | Selector) else _label(c) for c in choices)
    return ", ".join((first, *labels))


def _selectors(choice: Any, objects: Objects) -> list[str | Selector]:
    """The selectors of a choice: several, if it is a list of parts of the tree and no part itself."""
    members = _members(choice)
    if members is None or (not isinstance(choice, ValuesView) and objects.paths(choice)):
        return [_selector(choice, objects)]
    # An empty list is a choice of nothing: without it, the other choices might mean the whole tree.
    return [found for member in members for found in _selectors(member, objects)] or [at(label=repr(choice))]


def _members(choice: Any) -> list[Any] | None:
    # A dict, or a tuple with names, is a module: only if it is in the tree with all its arrays, it is selected.
    if not isinstance(choice, list | tuple | ValuesView) or hasattr(choice, "_fields"):
        return None
    members = list(choice)
    is_part = (isinstance(member, ARRAYS) or children(member) is not None for member in members)
    return members if all(is_part) else None


def _selector(choice: Any, objects: Objects) -> str | Selector:
    if isinstance(choice, str | Selector):
        return choice
    if isinstance(choice, Plan):
        fix = "Follow it, follow(tree, plan), or pass it beside the tree: split(tree, frozen=plan)."
        raise SelectorError(repr(choice), "is a plan; a selector says which parameters are meant.", fix)
    if _is_no_part(choice):
        raise not_a_selector(choice, whole="tree", part="a module or array")
    paths = objects.paths(choice)
    if not paths:
        raise NoMatchError(_label(choice), len(objects.read.inventory.params), note=_why(choice))
    return at(*paths, label=_label(choice))


def _is_no_part(choice: Any) -> bool:
    """Whether a choice can be in no tree: a leaf that is not an array, or a list of selectors."""
    if isinstance(choice, list | tuple) and choice and all(isinstance(item, str | Selector) for item in choice):
        return True
    return not isinstance(choice, ARRAYS) and children(choice) is None


def _why(choice: Any) -> str:
    leaves = jax.tree.leaves(choice)
    if leaves and all(isinstance(leaf, bool) for leaf in leaves):
        return "It is a mask. Select by name instead; mask(tree) returns the mask of the trainable leaves."
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return "It is being traced, and inside jit an array is another object. Select it by name."
    return "It is not, or no longer, part of this tree. Select it by name."


def _label(choice: Any) -> str:
    if isinstance(choice, ARRAYS):
        return f"<Array of shape {choice.shape}>"
    return f"<{type(inner_of(choice)).__name__}>"


@dataclass(frozen=True)
class Objects:
    """The modules and arrays of a tree, found as objects.

    An array is found by identity, at each place where it stands. A marked tree makes new nodes, but not new arrays,
    each time it is read. So two nodes are the same if they have the same arrays at the same places.

    Attributes:
        read: the survey of the tree.
    """

    read: Survey

    def paths(self, wanted: Any) -> list[str]:
        """The names of all places of an object; none if it is not in the tree."""
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
    def _at(self) -> dict[int, list[LeafPlace]]:
        found: dict[int, list[LeafPlace]] = defaultdict(list)
        for slot in self.read.layout.slots:
            found[id(self.read.leaves[slot.leaf])].append(slot)
        return found

    @cached_property
    def _slots(self) -> dict[Keys, LeafPlace]:
        return {slot.keys: slot for slot in self.read.layout.slots}

    @cached_property
    def _owners(self) -> dict[Keys, type]:
        return {node.keys: node.owner for node in self.read.layout.nodes}

    @cached_property
    def _sizes(self) -> Counter[Keys]:
        """The number of leaves at each place or below it."""
        return Counter(slot.keys[:depth] for slot in self.read.layout.slots for depth in range(len(slot.keys) + 1))


def _identical(wanted: Any, node: Any, keys: Keys) -> Iterator[str]:
    if node is wanted:
        yield ".".join(keys)
    elif is_window(node):
        yield from _identical(wanted, inner_of(node), keys)
    else:
        for key, child in children(node) or ():
            yield from _identical(wanted, child, keys + keys_of(key))
