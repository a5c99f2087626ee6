"""The names that each leaf of an expression matches."""

from __future__ import annotations

import re
from collections.abc import Iterable

from frostline._core.errors import UnsupportedError
from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.match import nodes_of
from frostline._core.selecting.pattern import Deep, parse
from frostline._core.selecting.selectors import at, everything, glob, of_type, own, regex, where
from frostline._core.tree import NameNode, NameTree


def names_of(leaf: Selector, inventory: Inventory) -> set[int]:
    """Returns the numbers of the names that `leaf` matches.

    A pattern or a regular expression matches names, so it may match one name of a tied parameter and not the other. All
    other leaves match parameters, with all of their names.

    Raises:
        UnsupportedError: the leaf names rows of a parameter.
    """
    tree = inventory.tree
    match leaf:
        case glob(pattern):
            return _below(nodes_of(pattern, tree))
        case regex(pattern):
            return _matching(re.compile(pattern), tree)
        case own(pattern):
            return _own(pattern, tree)
        case of_type():
            return _of_type(leaf, inventory)
        case where():
            predicate = leaf.function()
            return _names_of_params((param for param in inventory.params if predicate(param)), tree)
        case at(paths):
            return _at(paths, tree)
    assert leaf == everything, "all leaves are listed above"
    return set(range(len(tree.names)))


def buffers_of(leaf: Selector, inventory: Inventory) -> set[int]:
    """Returns the numbers of the buffers that a leaf matches; ``where`` and ``own`` are about parameters alone."""
    return _beside(leaf, inventory.of_buffers) if inventory.buffers else set()


def others_of(leaf: Selector, inventory: Inventory) -> list[Param]:
    """Returns the leaves that are no floating arrays and that a leaf matches."""
    found = _beside(leaf, inventory.of_others) if inventory.others else set()
    return [param for name in sorted(found) if (param := inventory.of_others.tree.names[name].param) is not None]


def _beside(leaf: Selector, inventory: Inventory) -> set[int]:
    if isinstance(leaf, where | own):
        return set()
    try:
        return names_of(leaf, inventory)
    except UnsupportedError:  # rows of buffers; the caller has seen whether they are rows of parameters, too
        return set()


def _below(nodes: Iterable[NameNode]) -> set[int]:
    names: set[int] = set()
    for node in nodes:
        names.update(range(node.first, node.last))
    return names


def _matching(pattern: re.Pattern[str], tree: NameTree) -> set[int]:
    return {name for name, node in enumerate(tree.names) if pattern.fullmatch(node.path)}


def _own(pattern: str, tree: NameTree) -> set[int]:
    nodes = nodes_of(pattern, tree)
    if isinstance(parse(pattern)[-1], Deep):
        nodes = [node for top in nodes for node in tree.nodes[top.start : top.stop]]
    return {child.first for node in nodes for child in (node, *node.children.values()) if child.param is not None}


def _of_type(leaf: of_type, inventory: Inventory) -> set[int]:
    tree = inventory.tree
    owners = {owners for param in inventory.params if (owners := param.owners)}
    taken = {owner: leaf.takes(owner) for each in owners for owner in each}
    fitting = {each for each in owners if any(taken[owner] for owner in each)}
    modules = (module.path for module in inventory.modules if leaf.takes(module.owner))
    names = _below(node for path in modules if (node := tree.find(path)) is not None)
    return names | _names_of_params((param for param in inventory.params if param.owners in fitting), tree)


def _at(paths: tuple[str, ...], tree: NameTree) -> set[int]:
    nodes = [node for path in paths if (node := tree.find(path)) is not None]
    # A tensor object stands for all of its names; a module object stands for everything below the given names.
    params = (node.param for node in nodes if node.param is not None)
    return _below(nodes) | _names_of_params(params, tree)


def _names_of_params(params: Iterable[Param], tree: NameTree) -> set[int]:
    return {name for param in params for name in tree.names_of[param.path]}
