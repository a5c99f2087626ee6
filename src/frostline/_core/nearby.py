"""What there is instead of what a selector asked for."""

from __future__ import annotations

from difflib import get_close_matches

from frostline._core.errors import NoMatchError
from frostline._core.inventory import Inventory
from frostline._core.match import walk
from frostline._core.pattern import Item, parse, spell
from frostline._core.selectors import Selector, glob, of_type, regex
from frostline._core.tree import Node, Tree


def no_match(leaf: Selector, source: str, inventory: Inventory) -> NoMatchError:
    """The error of a leaf that matches nothing in `inventory`, `source` being how its author wrote it."""
    count = len(inventory.params)
    match leaf:
        case glob(pattern):
            note = _note(pattern, inventory.tree)
            return NoMatchError(source, count, () if note else closest(pattern, inventory.tree), note)
        case regex(pattern):
            return NoMatchError(source, count, closest(pattern, inventory.tree))
        case of_type():
            return NoMatchError(source, count, _classes(inventory), heading="Classes in the model")
    paths = tuple(spell(node.keys) for node in inventory.tree.names[:3])
    return NoMatchError(source, count, paths, heading="The first paths")


def closest(pattern: str, tree: Tree) -> tuple[str, ...]:
    """Up to three paths that look like `pattern`, best first; else the first ones of the model."""
    # Modules whose content nothing speaks of are no help.
    paths = [spell(node.keys) for node in tree.nodes[1:] if node.last > node.first]
    return tuple(get_close_matches(pattern, paths, n=3, cutoff=0.5) or paths[:3])


def _note(pattern: str, tree: Tree) -> str:
    steps = parse(pattern)
    for last in range(len(steps)):
        if not walk(steps[: last + 1], tree, pattern):
            return _out_of_range(steps[last], walk(steps[:last], tree, pattern))
    nodes = walk(steps, tree, pattern)
    named = f"{spell(nodes[0].keys)!r} has" if len(nodes) == 1 else f"The {len(nodes)} modules of that name have"
    return f"{named} neither parameters nor buffers, so there is nothing to freeze."


def _out_of_range(step: object, nodes: list[Node]) -> str:
    if not isinstance(step, Item) or len(nodes) != 1:
        return ""
    count = len(nodes[0].positions)
    children = "1 child" if count == 1 else f"{count} children"
    return f"{spell(nodes[0].keys)!r} has {children}: indices go from {-count} to {count - 1}."


def _classes(inventory: Inventory) -> tuple[str, ...]:
    owners = [owner for param in inventory.params for owner in reversed(param.owners)]
    owners += [module.owner for module in inventory.modules]
    return tuple(dict.fromkeys(owner.__qualname__ for owner in owners))
