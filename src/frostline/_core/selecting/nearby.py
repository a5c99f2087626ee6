"""What there is instead of what a selector asked for."""

from __future__ import annotations

from difflib import get_close_matches

from frostline._core.errors import NoMatchError
from frostline._core.inventory import Inventory
from frostline._core.selecting.match import walk
from frostline._core.selecting.pattern import Item, parse, spell
from frostline._core.selecting.selectors import Selector, glob, of_type, regex
from frostline._core.tree import NameNode, NameTree


def no_match(leaf: Selector, source: str, inventory: Inventory) -> NoMatchError:
    """The error of a leaf that matches nothing in `inventory`, `source` being how its author wrote it."""
    count, tree = len(inventory.params), inventory.tree
    match leaf:
        case glob(pattern):
            if note := _note(pattern, tree):
                return NoMatchError(source, count, note=note)
            return _with_paths(source, count, _closest(pattern, tree), tree)
        case regex(pattern):
            return _with_paths(source, count, _closest(pattern, tree), tree)
        case of_type():
            return NoMatchError(source, count, _classes(inventory), heading="Classes in the model")
    return _with_paths(source, count, [], tree)


def _with_paths(source: str, count: int, closest: list[str], tree: NameTree) -> NoMatchError:
    if closest:
        return NoMatchError(source, count, tuple(closest))
    first = tuple(spell(node.keys) for node in tree.names[:3])
    return NoMatchError(source, count, first, heading="The first paths")


def _closest(pattern: str, tree: NameTree) -> list[str]:
    # Modules whose content nothing speaks of are no help.
    paths = [spell(node.keys) for node in tree.nodes[1:] if node.last > node.first]
    return get_close_matches(pattern, paths, n=3, cutoff=0.6)


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
    children = "1 child" if count == 1 else f"{count} children"
    return f"{spell(nodes[0].keys)!r} has {children}: indices go from {-count} to {count - 1}."


def _classes(inventory: Inventory) -> tuple[str, ...]:
    owners = [owner for param in inventory.params for owner in reversed(param.owners)]
    owners += [module.owner for module in inventory.modules]
    return tuple(dict.fromkeys(owner.__qualname__ for owner in owners))
