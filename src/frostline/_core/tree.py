"""The names of a model as a tree, numbered so that all that lies below a node is one range."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import final

from frostline._core.param import Module, Param, split_path

# One name with a number; more digits than that are no list.
_NUMBERED = re.compile(r"(.*[^0-9])([0-9]{1,9})", re.DOTALL)


@final
class NameNode:
    """One key below another one: a module, a parameter, or a mere step on the way to one.

    Attributes:
        key: its key in its parent.
        children: the nodes below it, in model order.
        param: the parameter that it names, if it names one.
        module: the module that it names, if the inventory lists it.
        keys: its keys from the root down.
        start, stop: the nodes at and below it have the numbers from `start` up to `stop`.
        first, last: the names at and below it have the numbers from `first` up to `last`.
    """

    __slots__ = ("_positions", "children", "first", "key", "keys", "last", "module", "param", "start", "stop")

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.key = keys[-1] if keys else ""
        self.keys = keys
        self.children: dict[str, NameNode] = {}
        self.param: Param | None = None
        self.module: Module | None = None
        self.start = self.stop = self.first = self.last = 0
        self._positions: Positions | None = None

    @property
    def path(self) -> str:
        """Its dotted name."""
        return ".".join(self.keys)

    @property
    def canonical(self) -> str:
        """The path under which a plan speaks of it."""
        if self.param is not None:
            return self.param.path
        return self.path if self.module is None else self.module.path

    @property
    def is_name(self) -> bool:
        """Whether a plan speaks of it."""
        return self.param is not None or (self.module is not None and self.module.stateful)

    @property
    def positions(self) -> Positions | None:
        """The children by position; None for what has no positions.

        The members of a list are as Python indexes them. Where all keys are numbers, the number is the position: a list
        of which only names are known may have members without parameters. One name with numbers, such as ``layers_0``
        to ``layers_11``, counts in the order of the numbers.
        """
        if self._positions is None:
            members = None if self.module is None else self.module.members
            self._positions = _numbered(self.children) if members is None else _listed(members, self.children)
        return self._positions

    def at(self, index: int | slice) -> list[NameNode]:
        """The children that ``self[index]`` names; none if it is out of range, or there are no positions."""
        if self.positions is None:
            return []
        nodes, length = self.positions.nodes, self.positions.length
        if isinstance(index, slice):
            # Asked of each child, and not of each number: a key may be as large as it likes.
            chosen = range(length)[index]
            return [node for position, node in nodes.items() if position in chosen]
        position = index if index >= 0 else length + index
        return [nodes[position]] if position in nodes else []


@final
@dataclass(frozen=True, slots=True)
class Positions:
    """The children of a node by position.

    Attributes:
        nodes: position -> child, in order; a member without parameters and buffers need not be there.
        length: how many positions there are.
    """

    nodes: dict[int, NameNode]
    length: int


def is_position(key: str) -> bool:
    """Whether a key is a number as a list writes it."""
    # More digits than that are no list, and more than some thousand are more than int() reads.
    return key.isascii() and key.isdecimal() and len(key) < 1000 and (key == "0" or not key.startswith("0"))


def _child(parent: NameNode, key: str) -> NameNode:
    child = parent.children.get(key)
    if child is None:
        child = parent.children[key] = NameNode((*parent.keys, key))
    return child


def _listed(members: tuple[str, ...], children: dict[str, NameNode]) -> Positions:
    nodes = {position: children[key] for position, key in enumerate(members) if key in children}
    return Positions(nodes, len(members))


def _numbered(children: dict[str, NameNode]) -> Positions | None:
    if children and all(is_position(key) for key in children):
        nodes = {int(key): child for key, child in children.items()}
        return Positions(nodes, max(nodes) + 1)
    found = [_NUMBERED.fullmatch(key) for key in children]
    parts = [(match[1], int(match[2])) for match in found if match is not None]
    if len(parts) < len(found) or len({stem for stem, _ in parts}) != 1 or len(set(parts)) < len(parts):
        return None
    in_order = sorted(zip(parts, children.values(), strict=True), key=lambda pair: pair[0])
    return Positions({position: child for position, (_, child) in enumerate(in_order)}, len(in_order))


@final
class NameTree:
    """The names of `params` and `modules`, aliases included.

    Attributes:
        root: the node of the model itself.
        nodes: all nodes in pre-order.
        names: the nodes that a plan speaks of, in pre-order; their number is the number of the name.
    """

    def __init__(self, params: tuple[Param, ...], modules: tuple[Module, ...]) -> None:
        self.root = NameNode(())
        self._by_path: dict[str, NameNode] = {"": self.root}
        for module in modules:
            self._grow(module.path, module.keys).module = module
        for param in params:
            self._grow(param.path, param.keys).param = param
            for alias in param.aliases:
                self._grow(alias, ()).param = param
        self.nodes: list[NameNode] = []
        self.names: list[NameNode] = []
        self._number(self.root)

    def _grow(self, path: str, keys: tuple[str, ...]) -> NameNode:
        above, _, key = path.rpartition(".")
        parent = None if keys else self._by_path.get(above)
        if parent is not None and path:
            node = _child(parent, key)
        else:
            node = self.root
            for key in keys or split_path(path):
                node = _child(node, key)
        self._by_path[path] = node
        return node

    def _number(self, root: NameNode) -> None:
        # A stack of our own: how deep a model nests is not ours to limit. A node with children is met a second time
        # when all below it have their numbers.
        nodes, names, waiting = self.nodes, self.names, [(root, False)]
        while waiting:
            node, is_done = waiting.pop()
            if not is_done:
                node.start, node.first = len(nodes), len(names)
                nodes.append(node)
                if node.is_name:
                    names.append(node)
                if node.children:
                    waiting.append((node, True))
                    waiting.extend((child, False) for child in reversed(node.children.values()))
                    continue
            node.stop, node.last = len(nodes), len(names)

    def find(self, path: str) -> NameNode | None:
        """The node of a dotted path, if there is one."""
        return self._by_path.get(path)

    @cached_property
    def by_key(self) -> dict[str, list[NameNode]]:
        """The nodes with each key, in pre-order."""
        found: defaultdict[str, list[NameNode]] = defaultdict(list)
        for node in self.nodes[1:]:
            found[node.key].append(node)
        return dict(found)

    @cached_property
    def paths(self) -> list[str]:
        """The canonical path behind each name."""
        return [node.canonical for node in self.names]

    @cached_property
    def names_of(self) -> dict[str, list[int]]:
        """The names behind each canonical path."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for name, path in enumerate(self.paths):
            found[path].append(name)
        return dict(found)

    @cached_property
    def tied(self) -> list[list[int]]:
        """The names of each parameter that has several."""
        return [names for names in self.names_of.values() if len(names) > 1]
