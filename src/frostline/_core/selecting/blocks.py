"""The parts of a model by depth, as selectors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from itertools import accumulate
from typing import final

from frostline._core.inventory import Inventory
from frostline._core.selecting.pattern import spell
from frostline._core.tree import NameNode, NameTree

# A mapping has no order of its own: its parts are told by their names, and what no line names stands in the middle.
_BEFORE = re.compile(r"embed|stem|patch|token|input|init|wte|wpe|pos(?!t)", re.IGNORECASE)
_AFTER = [
    re.compile(words, re.IGNORECASE) for words in ("decod", "norm|ln_f|pool|post|out", "head|classifier|logits|^fc")
]
_STEM = re.compile(r"(.*?)[0-9]+", re.DOTALL)
_BARE = re.compile(r"[\w-]+")


def blocks(inventory: Inventory) -> list[str]:
    """The parts of a model by depth: first what comes before the repeated blocks, then each of these, then the rest.

    The members of a list, or the numbered names of a mapping, are blocks where two of them or more are of one class and
    hold modules of their own, as the layers of a transformer do. Stages are looked into, which are members that differ
    and hold one such list each: the blocks of a ResNet or of a Swin transformer are those inside of its stages. In a
    model without such a list the members need not hold modules, as the convolutions of a VGG. The order is that of
    registration. A mapping has none, so numbers decide there, and then names: embeddings come first, norms and heads
    last.

    Each parameter is in exactly one block, a tied one in that of its first name. Modules with buffers alone are in the
    block of their neighbour.

    Example:
        >>> from frostline._core.param import Param
        >>> names = ("embed.w", "layers.0.a.w", "layers.0.b.w", "layers.1.a.w", "layers.1.b.w", "norm.w", "head.w")
        >>> blocks(Inventory(tuple(Param(name, (2,), "float32", 4) for name in names)))
        ['embed', 'layers.0', 'layers.1', 'norm', 'head']
    """
    return _BlockReader(inventory.tree).read()


@final
class _BlockReader:
    """One reading of a tree."""

    def __init__(self, tree: NameTree) -> None:
        self._tree = tree
        self._owned = [0, *accumulate(node.canonical == node.path for node in tree.names)]
        self._children = {node.start: self._ordered(node) for node in tree.nodes}
        self._is_composite = {
            node.start: any(child.children for child in self._children[node.start]) for node in tree.nodes
        }
        self._needs_composite = any(self._repeated(node, composite=True) for node in tree.nodes)
        self._holds: dict[int, bool] = {}
        self._layers: dict[int, int] = {}
        self._likeness: dict[int, int] = {}
        numbers: dict[Hashable, int] = {}
        for node in reversed(tree.nodes):
            below = self._children[node.start]
            self._layers[node.start] = sum(self._layers[child.start] for child in below if child.param is None) or 1
            holds = self._repeated(node, composite=self._needs_composite)
            self._holds[node.start] = bool(holds) or any(self._holds[child.start] for child in below)
            shape = node.param.shape if node.param is not None else None
            alike = (_kind(node), shape, tuple((child.key, self._likeness[child.start]) for child in below))
            self._likeness[node.start] = numbers.setdefault(alike, len(numbers))

    def read(self) -> list[str]:
        """The blocks of the model."""
        top = self._tree.root
        while len(children := self._children[top.start]) == 1 and self._is_composite[children[0].start]:
            top = children[0]
        if not self._is_composite[top.start]:
            return [spell(child.keys) for child in children]
        return list(self._inside(top))

    def _ordered(self, node: NameNode) -> list[NameNode]:
        """The children that have a name of their own at or below them."""
        children = list(node.children.values())
        if _is_mapping(node):
            positions = {} if node.positions is None else node.positions.nodes
            places = {child.key: place for place, child in positions.items()}
            children.sort(key=lambda child: (places.get(child.key, 0), *_place(child.key)))
        return [child for child in children if self._owned[child.last] > self._owned[child.first]]

    def _inside(self, node: NameNode) -> Iterator[str]:
        """The blocks inside of a module that is not a block itself."""
        children = self._children[node.start]
        # The parameters of a module itself come before its children; those in a mapping are its children.
        own = [] if _is_mapping(node) else [child for child in children if child.param is not None]
        rest = [child for child in children if child not in own]
        is_open = self._is_open(node)
        before, group = any(map(is_open, rest)), own
        for child in rest:
            if is_open(child):
                yield from self._together(group)
                yield from self._inside(child)
                before, group = False, []
            elif before or not (any(map(self._has_params, group)) and self._has_params(child)):
                # All that comes before the first container is one block, and buffers alone are none.
                group.append(child)
            else:
                yield from self._together(group)
                group = [child]
        yield from self._together(group)

    def _is_open(self, node: NameNode) -> Callable[[NameNode], bool]:
        """Whether a child is to be looked into."""
        members = [member.start for member in self._repeated(node, composite=self._needs_composite)]
        alike = len({self._likeness[start] for start in members}) == 1

        def is_open(child: NameNode) -> bool:
            if child.start in members:
                return not alike and self._is_stage(child)
            return self._holds[child.start]

        return is_open

    def _has_params(self, node: NameNode) -> bool:
        return any(name.param is not None for name in self._tree.names[node.first : node.last])

    def _is_stage(self, node: NameNode) -> bool:
        return self._is_uniform(node) or sum(map(self._is_uniform, self._children[node.start])) == 1

    def _is_uniform(self, node: NameNode) -> bool:
        """Whether all members of a container are of one class, and each holds three layers or more."""
        members = self._children[node.start]
        is_list = node.positions is not None and len(set(map(_kind, members))) == 1
        return is_list and all(self._layers[member.start] >= 3 for member in members)

    def _repeated(self, node: NameNode, *, composite: bool) -> list[NameNode]:
        """The members of a container of which there are several of one class; they hold modules if they have to."""
        members: defaultdict[Hashable, list[NameNode]] = defaultdict(list)
        for child in self._children[node.start]:
            stem = _STEM.fullmatch(child.key)
            is_member = node.positions is not None or (_is_mapping(node) and stem is not None)
            if is_member and child.param is None and (self._is_composite[child.start] or not composite):
                name = None if node.positions is not None or stem is None else stem[1]
                members[name, _kind(child)].append(child)
        return [child for group in members.values() if len(group) > 1 for child in group]

    def _together(self, nodes: list[NameNode]) -> Iterator[str]:
        """The blocks of siblings that stand before the first container: one, if one pattern can name them."""
        if len(nodes) > 1 and all(_BARE.fullmatch(node.key) and not self._is_torn(node) for node in nodes):
            above = spell(nodes[0].keys[:-1])
            yield f"{above}{'.' if above else ''}{{{','.join(node.key for node in nodes)}}}"
        else:
            for node in nodes:
                yield from self._whole(node)

    def _whole(self, node: NameNode) -> Iterator[str]:
        if not self._is_torn(node):
            yield spell(node.keys)
            return
        for child in self._children[node.start]:
            yield from self._whole(child)

    def _is_torn(self, node: NameNode) -> bool:
        """Whether a parameter below has its first name elsewhere, so that this node would name it a second time."""
        first_names = map(self._tree.find, self._tree.paths[node.first : node.last])
        return any(first is None or not node.start <= first.start < node.stop for first in first_names)


def _is_mapping(node: NameNode) -> bool:
    return node.module is None or (node.module.owner is object and node.module.members is None)


def _kind(node: NameNode) -> Hashable:
    """The class of a module; where that is not known, the keys of its children."""
    owner = object if node.module is None else node.module.owner
    return tuple(node.children) if owner is object else owner


def _place(key: str) -> tuple[object, ...]:
    """Where in a mapping a key belongs, by its words and then by its numbers."""
    words = -1 if _BEFORE.search(key) else next((n for n, late in enumerate(_AFTER, 1) if late.search(key)), 0)
    parts = re.split(r"([0-9]{1,9})", key)
    return (words, [int(part) if place % 2 else part for place, part in enumerate(parts)])
