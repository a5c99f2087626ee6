"""The survey of a tree: its parameters and modules as an inventory, and the leaves behind the names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from operator import attrgetter
from typing import Any

from jax.tree_util import PyTreeDef, register_static, tree_flatten, tree_flatten_with_path

from frostline._core.errors import PinnedError, StructureError
from frostline._core.errors.base import counted
from frostline._core.inventory import Inventory
from frostline._core.param import Buffer, Module, Param
from frostline._core.plan import Plan
from frostline.jax._arrays import described, is_param, nbytes
from frostline.jax._freezing.held_modules import held
from frostline.jax._freezing.keras_objects import refuse_keras
from frostline.jax._uses.layout import Keys, Layout, LeafPlace, TreeNode, keys_of, layout
from frostline.jax._uses.use import Frozen
from frostline.jax._uses.window import is_window

# The class of a Python container tells nothing about a model.
_CONTAINERS = (dict, list, tuple)

Places = Mapping[str, tuple[LeafPlace, ...]]

# A plan has no leaves, so it goes into compiled code as it is, and a function is traced once for each.
register_static(Plan)


@dataclass(frozen=True)
class Survey:
    """A tree read once.

    Attributes:
        tree: the tree.
        leaves: its leaves, as JAX counts them.
        structure: its structure.
        layout: the names and places of the leaves.
        is_planned: whether a plan beside the tree says what is frozen.
    """

    tree: Any
    leaves: list[Any]
    structure: PyTreeDef
    layout: Layout
    is_planned: bool = False

    @property
    def arrays(self) -> tuple[tuple[LeafPlace, ...], ...]:
        """The places of each leaf. Only a mark ties two places: the same object at two places is two leaves."""
        return self.layout.groups

    @cached_property
    def places(self) -> Places:
        """The places of each parameter by its path.

        A tied array that is frozen under one name and trains under another is two parameters.
        """
        return _places(self.layout, tuple(map(is_param, self.leaves)))

    @cached_property
    def inventory(self) -> Inventory:
        """The tree as data, for the core."""
        params = tuple(self._param(slots) for slots in self.places.values())
        return Inventory(params, tuple(self._modules()), others=tuple(self._others()))

    @cached_property
    def plan(self) -> Plan:
        """The plan of the tree."""
        frozen = {path for path, (slot, *_) in self.places.items() if slot.is_still}
        return Plan(frozenset(frozen), frozenset(self.places.keys() - frozen))

    @cached_property
    def thawed(self) -> frozenset[str]:
        """The trainable parameters of which a marked tree around them, or a plan beside the tree, says that they train.

        What trains because nothing was said may have lost its mark on the way.
        """
        if self.is_planned:
            return self.plan.trainable
        return self.plan.trainable.intersection(_thawed(self.tree, ()))

    @cached_property
    def pinned(self) -> frozenset[str]:
        """The parameters inside frozen uses."""
        return frozenset(path for path, (slot, *_) in self.places.items() if slot.pinned)

    @cached_property
    def whole(self) -> frozenset[Keys]:
        """The keys of every held module."""
        return held((slot for slots in self.places.values() for slot in slots), attrgetter("is_still"))

    @cached_property
    def trainable(self) -> frozenset[int]:
        """The trainable leaves."""
        free = (slots for slots in self.places.values() if not slots[0].is_still)
        return frozenset(slots[0].leaf for slots in free)

    @cached_property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """The names of each tied array; the first is one under which it trains, if there is one."""
        tied = (group for group in self.arrays if len(group) > 1)
        return tuple(tuple(slot.name for slot in sorted(group, key=attrgetter("is_still"))) for group in tied)

    def beside(self, plan: Plan) -> Survey:
        """The survey of the tree as a plan says, which stands beside it.

        Raises:
            StructureError: it is no plan; or it trains what a mark in the tree freezes.
            PlanMismatchError: the plan and the tree have different paths.
            PinnedError: the plan trains a frozen use.
        """
        if not isinstance(plan, Plan):
            fix = 'Make a plan: plan = fj.plan(tree, "encoder").'
            raise StructureError(f"frozen={_shown(plan)}", f"takes a plan, but got {described(plan)}.", (), fix)
        params = tuple(map(is_param, self.leaves))
        return replace(self, layout=_beside(self.layout, params, plan), is_planned=True)

    def marks(self, paths: Iterable[str]) -> frozenset[str]:
        """All names of the parameters at these paths, for marks."""
        return frozenset(slot.name for path in paths for slot in self.places[path])

    def _param(self, slots: tuple[LeafPlace, ...]) -> Param:
        leaf, first = self.leaves[slots[0].leaf], slots[0]
        return Param(
            path=first.name,
            shape=tuple(leaf.shape),
            dtype=str(leaf.dtype),
            itemsize=leaf.dtype.itemsize,
            owners=tuple(dict.fromkeys(_class(owner) for slot in slots for owner in slot.owners)),
            aliases=tuple(slot.name for slot in slots[1:]),
            pinned=first.pinned,
            keys=_keys(first.keys),
        )

    def _others(self) -> Iterable[Buffer]:
        for slot in self.layout.slots:
            if not is_param(leaf := self.leaves[slot.leaf]):
                shape, dtype = getattr(leaf, "shape", ()), getattr(leaf, "dtype", type(leaf).__name__)
                yield Buffer(slot.name, shape, str(dtype), nbytes(leaf))

    def _modules(self) -> Iterable[Module]:
        own: Counter[Keys] = Counter()
        for slot in self.layout.slots:
            if not is_param(self.leaves[slot.leaf]):
                own[slot.keys[:-1]] += nbytes(self.leaves[slot.leaf])
        return (_module(node, own[node.keys]) for node in self.layout.nodes)


def survey(tree: Any, frozen: Plan | None = None) -> Survey:
    """Reads a tree.

    Args:
        tree: any pytree.
        frozen: a plan beside the tree. Without it the marks of the tree say what is frozen.

    Raises:
        SamePathError: two leaves have one name.
        UnsupportedError: a leaf is an object of Keras.
        StructureError, PlanMismatchError, PinnedError: the plan does not fit the tree.
    """
    leaves, structure = tree_flatten(tree)
    refuse_keras(leaves)
    read = Survey(tree, leaves, structure, layout(tree, structure))
    return read if frozen is None else read.beside(frozen)


def _thawed(tree: Any, above: Keys) -> Iterator[str]:
    """The names of which the marked trees in a tree say that they train."""
    for path, node in tree_flatten_with_path(tree, is_leaf=is_window)[0]:
        if is_window(node):
            keys = above + keys_of(path)
            yield from (".".join((*keys, name)) for name in node._frostline.thawed)
            yield from _thawed(node._frostline.child, keys)


@lru_cache(maxsize=64)
def _places(own: Layout, params: tuple[bool, ...]) -> Places:
    places: dict[int, tuple[LeafPlace, ...]] = {}
    for group in own.groups:
        if params[group[0].leaf]:
            for uses in _by_use(group):
                places[own.order[uses[0]]] = uses
    return {places[number][0].name: places[number] for number in sorted(places)}


@lru_cache(maxsize=64)
def _beside(own: Layout, params: tuple[bool, ...], plan: Plan) -> Layout:
    """The layout with the marks of a plan."""
    places = _places(own, params)
    still = {path for path, (slot, *_) in places.items() if slot.is_still}
    # Computed from the plan, so that an error names the right side.
    thawed = plan.change_to(Plan(frozenset(still), frozenset(places.keys() - still))).freeze
    plan.check_no_buffers()
    if thawed:
        pinned = tuple(sorted(path for path in thawed if places[path][0].pinned))
        if pinned:
            raise PinnedError("frozen=plan", pinned)
        problem = f"trains {counted(len(thawed), 'parameter')} that a mark in the tree freezes:"
        fix = "Take the marks off the tree, tree = thaw(tree), or leave the plan out."
        raise StructureError("frozen=plan", problem, tuple(sorted(thawed)), fix)
    return own.with_marks(frozenset(slot.name for path in plan.frozen for slot in places[path]))


def _shown(plan: object) -> str:
    return repr(plan) if isinstance(plan, str) else type(plan).__name__


def _by_use(group: tuple[LeafPlace, ...]) -> Iterable[tuple[LeafPlace, ...]]:
    uses: dict[tuple[bool, bool], list[LeafPlace]] = defaultdict(list)
    for slot in group:
        # Inside a frozen use a mark has no effect.
        uses[slot.pinned, slot.marked and not slot.pinned].append(slot)
    return map(tuple, uses.values())


def _module(node: TreeNode, buffer_bytes: int) -> Module:
    path = ".".join(node.keys)
    owner = _use(_class(node.owner)) if node.window is Frozen else _class(node.owner)
    return Module(path, owner, buffer_bytes, pinned=node.pinned, keys=_keys(node.keys), members=node.members)


@cache
def _use(owner: type) -> type:
    """The class that a report shows for a use of this class: a subclass of `Frozen`, as in PyTorch."""
    return Frozen if owner is object else type(f"Frozen{owner.__name__}", (Frozen,), {})


def _class(owner: type) -> type:
    return object if owner in _CONTAINERS else owner


def _keys(keys: Keys) -> Keys:
    # If no key contains a dot, the path is enough.
    return keys if any("." in key for key in keys) else ()
