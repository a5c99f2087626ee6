"""Suggestions for a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from frostline._core.errors import NoMatchError
from frostline._core.errors.base import counted
from frostline._core.inventory import Inventory
from frostline._core.selecting.match import walk
from frostline._core.selecting.pattern import Item, parse, spell
from frostline._core.selecting.selectors import Selector, glob, of_type, regex
from frostline._core.tree import NameNode, NameTree


def closest(word: object, words: Iterable[str]) -> list[str]:
    """Returns at most three words that are similar to `word`, best first; case does not matter.

    Example:
        >>> closest("lisa", ["LISA", "HiFT"])
        ['LISA']
    """
    by_lower: dict[str, list[str]] = {}
    for each in words:
        by_lower.setdefault(each.lower(), []).append(each)
    found = get_close_matches(str(word).lower(), by_lower, n=3, cutoff=0.6)
    return [each for lower in found for each in by_lower[lower]][:3]


def no_match(leaf: Selector, source: str, inventory: Inventory) -> NoMatchError:
    """Returns the error for a leaf that matches nothing in `inventory`; `source` is the leaf as its author wrote it."""
    count, tree = len(inventory.params), inventory.tree
    if isinstance(leaf, of_type):
        return NoMatchError(source, count, _classes(inventory), heading="Classes in the model")
    if isinstance(leaf, glob) and (note := _note(leaf.pattern, tree)):
        return NoMatchError(source, count, note=note)
    # Modules without parameters and buffers would not help.
    paths = [spell(node.keys) for node in tree.nodes[1:] if node.last > node.first]
    if isinstance(leaf, glob | regex) and (near := closest(leaf.pattern, paths)):
        return NoMatchError(source, count, tuple(near))
    first = tuple(spell(node.keys) for node in tree.names[:3])
    return NoMatchError(source, count, first, heading="The first paths")


def _note(pattern: str, tree: NameTree) -> str:
    steps = parse(pattern)
    for last in range(len(steps)):
        if not walk(steps[: last + 1], tree, pattern):
            return _out_of_range(steps[last], walk(steps[:last], tree, pattern))
    nodes = walk(steps, tree, pattern)
    named = f"{spell(nodes[0].keys)!r} has" if len(nodes) == 1 else f"The {len(nodes)} modules of that name have"
    return f"{named} neither parameters nor buffers, so there is nothing to freeze."


def _out_of_range(step: object, nodes: list[NameNode]) -> str:
    if not isinstance(step, Item) or len(nodes) != 1:
        return ""
    count = len(nodes[0].positions)
    children = counted(count, "child", "children")
    return f"{spell(nodes[0].keys)!r} has {children}: indices go from {-count} to {count - 1}."


def _classes(inventory: Inventory) -> tuple[str, ...]:
    owners = [owner for param in inventory.params for owner in reversed(param.owners)]
    owners += [module.owner for module in inventory.modules]
    return tuple(dict.fromkeys(owner.__qualname__ for owner in owners))
