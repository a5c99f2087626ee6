"""The layout of a tree: the name of each leaf, the classes around it, and whether it is frozen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
from jax.tree_util import DictKey, FlattenedIndexKey, GetAttrKey, PyTreeDef, SequenceKey

from frostline._core.errors import SamePathError
from frostline._core.selecting.pattern import spell
from frostline.jax._uses.window import THROUGH, Window, is_window

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeafPlace:
    """The place of a leaf in a tree.

    Attributes:
        keys: the keys that lead there.
        owners: the classes of the nodes around it, the root first.
        pinned: whether it is inside a ``Frozen``.
        marked: whether a mark freezes it.
        leaf: the number of its leaf; two places that a mark ties have the same number.
    """

    keys: Keys
    owners: tuple[type, ...]
    pinned: bool
    marked: bool
    leaf: int

    @property
    def name(self) -> str:
        """The dotted name."""
        return ".".join(self.keys)

    @property
    def is_still(self) -> bool:
        """Whether a parameter here is frozen."""
        return self.pinned or self.marked


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A node of a tree that is not a leaf: a module, or a container of modules.

    Attributes:
        keys: the keys that lead there.
        owner: its class.
        pinned: whether it is inside a ``Frozen``.
        window: the class of the window around it, if there is one.
        members: the keys of the members of a list or tuple, in order; None for what is neither.
    """

    keys: Keys
    owner: type
    pinned: bool
    window: type | None
    members: Keys | None


@dataclass(frozen=True, eq=False)
class Layout:
    """The places and nodes of all trees of one structure. Each layout is made once, and equals only itself.

    Attributes:
        slots: in tree order; a tied place comes where its name is.
        nodes: in tree order, the root first.
    """

    slots: tuple[LeafPlace, ...]
    nodes: tuple[TreeNode, ...]

    @cached_property
    def order(self) -> dict[LeafPlace, int]:
        """The number of each place."""
        return {slot: number for number, slot in enumerate(self.slots)}

    @cached_property
    def groups(self) -> tuple[tuple[LeafPlace, ...], ...]:
        """The places of each leaf; tied places have the same leaf."""
        groups: dict[int, list[LeafPlace]] = defaultdict(list)
        for slot in self.slots:
            groups[slot.leaf].append(slot)
        return tuple(map(tuple, groups.values()))

    def with_marks(self, names: frozenset[str]) -> Layout:
        """The layout in which these names are marked, too."""
        slots = (slot if slot.name not in names else replace(slot, marked=True) for slot in self.slots)
        return Layout(tuple(slots), self.nodes)


_LAYOUTS: dict[PyTreeDef, Layout] = {}
_MOST, _MOST_SLOTS = 512, 1_000_000


def layout(tree: Any, structure: PyTreeDef) -> Layout:
    """The layout of a tree, computed once for each structure.

    Raises:
        SamePathError: two leaves have one name.
    """
    found = _LAYOUTS.get(structure)
    if found is None:
        walk = _LayoutReader()
        walk.visit(tree, _Place((), (), pinned=False, scopes=()))
        found = Layout(tuple(walk.slots()), tuple(walk.nodes))
        _check_names(found.slots)
        if len(_LAYOUTS) >= _MOST or sum(len(one.slots) for one in _LAYOUTS.copy().values()) >= _MOST_SLOTS:
            _LAYOUTS.clear()
        _LAYOUTS[structure] = found
    return found


def keys_of(path: Iterable[Any]) -> Keys:
    """The keys of a JAX path as they appear in a name; windows add none."""
    return tuple(_text(key) for key in path if key != THROUGH)


def children(node: Any) -> list[tuple[tuple[Any, ...], Any]] | None:
    """The children of a node with their paths; None for a leaf."""
    found = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda inner: inner is not node)[0]
    is_leaf = len(found) == 1 and found[0][0] == () and found[0][1] is node
    return None if is_leaf else found


def _text(key: Any) -> str:
    match key:
        case DictKey(key) | FlattenedIndexKey(key):
            return str(key)
        case SequenceKey(idx):
            return str(idx)
        case GetAttrKey(name):
            return name
    return str(key)


@dataclass(frozen=True, slots=True)
class _Place:
    keys: Keys
    owners: tuple[type, ...]
    pinned: bool
    scopes: tuple[tuple[int, frozenset[str]], ...]  # for each marked tree around it: its depth and its marks
    window: type | None = None  # the class of the window whose child it is

    def below(self, key: Keys, owner: type) -> _Place:
        return _Place(self.keys + key, (*self.owners, owner), self.pinned, self.scopes)


class _LayoutReader:
    """One pass over a tree that numbers leaves as JAX does."""

    def __init__(self) -> None:
        self.nodes: list[TreeNode] = []
        self.count = 0
        self.found: list[tuple[_Place, int | None]] = []
        self.tied: dict[str, str] = {}

    def visit(self, node: Any, place: _Place) -> None:
        if node is None:
            self.found.append((place, None))
            return
        below = children(node)
        if below is None:
            self.found.append((place, self.count))
            self.count += 1
        elif is_window(node):
            self.visit(node._frostline.child, self._behind(node, place))
        else:
            members = tuple(_text(path[-1]) for path, _ in below) if isinstance(node, list | tuple) else None
            self.nodes.append(TreeNode(place.keys, type(node), place.pinned, place.window, members))
            for path, child in below:
                self.visit(child, place.below(keys_of(path), type(node)))

    def _behind(self, window: Window, place: _Place) -> _Place:
        held = window._frostline
        prefix = ".".join(place.keys) + "." if place.keys else ""
        for first, *others in held.ties:
            self.tied |= {prefix + other: prefix + first for other in others}
        scopes = (*place.scopes, (len(place.keys), held.marks)) if held.marks else place.scopes
        return _Place(place.keys, place.owners, place.pinned or held.pins, scopes, type(window))

    def slots(self) -> Iterator[LeafPlace]:
        leaves = {".".join(place.keys): leaf for place, leaf in self.found if leaf is not None}
        for place, number in self.found:
            leaf = number if number is not None else leaves.get(self.tied.get(".".join(place.keys), ""))
            if leaf is not None:
                yield LeafPlace(place.keys, place.owners, place.pinned, _is_marked(place), leaf)


def _is_marked(place: _Place) -> bool:
    return any(".".join(place.keys[depth:]) in marks for depth, marks in place.scopes)


def _check_names(slots: Iterable[LeafPlace]) -> None:
    seen: dict[str, LeafPlace] = {}
    for slot in slots:
        other = seen.setdefault(slot.name, slot)
        if other is not slot:
            raise SamePathError(slot.name, (spell(other.keys), spell(slot.keys)))
