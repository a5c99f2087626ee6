"""Suggestions for a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from frostline._core.errors import NoMatchError
from frostline._core.errors.base import counted
from frostline._core.inventory import Inventory
from frostline._core.param import Param
from frostline._core.selecting.beginnings import with_another_beginning
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.match import nodes_of, walk
from frostline._core.selecting.pattern import Item, Key, Step, parse, spell
from frostline._core.selecting.selectors import glob, of_type, own, regex, where
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
    if isinstance(leaf, where):
        first = tuple(f"{param.path}: dtype={param.dtype!r}, shape={param.shape}" for param in inventory.params[:3])
        return NoMatchError(source, count, first, heading="It is asked about")
    elsewhere: list[str] = []
    node = tree.root
    if isinstance(leaf, glob | own):
        steps = parse(leaf.pattern)
        last, nodes = _last_matched(steps, tree, leaf.pattern)
        if note := _note(steps[last:], nodes):
            lists_children = last < len(steps) and len(nodes) == 1 and nodes[0].positions is None
            return NoMatchError(source, count, _children(nodes[0]) if lists_children else (), note, "Its children")
        is_typo = last or (isinstance(steps[0], Key) and closest(steps[0].key, tree.root.children))
        if meant := [] if is_typo else with_another_beginning(leaf.pattern, tree):
            matched = {n.canonical for node in nodes_of(meant[0], tree) for n in tree.names[node.first : node.last]}
            if len(meant) == 1:
                return NoMatchError(source, count, note=f"{meant[0]!r} matches {len(matched)}.")
            return NoMatchError(source, count, tuple(meant[:3]), heading="These match")
        missing = steps[last]
        elsewhere = _paths(tree.by_key.get(missing.key, ()) if isinstance(missing, Key) else ())
        node = nodes[0] if len(nodes) == 1 else tree.root
    # Modules without parameters and buffers would not help.
    paths = [*_paths(tree.nodes[1:]), *(spell(buffer.path.split(".")) for buffer in inventory.buffers)]
    near = closest(leaf.pattern, paths) if isinstance(leaf, glob | own | regex) else []
    if near or elsewhere:
        return NoMatchError(source, count, tuple(near or elsewhere[:3]))
    if node.keys and (children := _children(node)):
        return NoMatchError(source, count, children, heading=f"Children of {spell(node.keys)!r}")
    first = tuple(spell(node.keys) for node in tree.names[:3])
    return NoMatchError(source, count, first, heading="The first paths")


def not_floating(source: str, inventory: Inventory, others: Sequence[Param]) -> NoMatchError:
    """Returns the error for a leaf that matches nothing but leaves that no training moves."""
    found = tuple(f"{each.path}: {each.dtype}{f' {each.shape}' if each.shape else ''}" for each in others)
    are = "is no floating array, and no" if len(others) == 1 else "are no floating arrays, and no"
    heading = f"It matches {counted(len(others), 'leaf', 'leaves')} that {are} training moves what is none"
    return NoMatchError(source, len(inventory.params), found, heading=heading)


def _last_matched(steps: Sequence[Step], tree: NameTree, pattern: str) -> tuple[int, list[NameNode]]:
    """How many steps match something, and what they match."""
    nodes = [tree.root]
    for number in range(1, len(steps) + 1):
        further = walk(steps[:number], tree, pattern)
        if not further:
            return number - 1, nodes
        nodes = further
    return len(steps), nodes


def _note(rest: Sequence[Step], nodes: list[NameNode]) -> str:
    """Why nothing matches the first of the steps that are left, where that is known."""
    if not rest:
        named = f"{spell(nodes[0].keys)!r} has" if len(nodes) == 1 else f"The {len(nodes)} modules of that name have"
        return f"{named} neither parameters nor buffers, so there is nothing to freeze."
    if not isinstance(rest[0], Item):
        return ""
    if len(nodes) == 1:
        name = repr(spell(nodes[0].keys)) if nodes[0].keys else "The model"
        positions = nodes[0].positions
        if positions is None:
            return f"{name} has no positions: an index is for lists, and for one name with numbers as in layers_0."
        children = counted(positions.length, "child", "children")
        return f"{name} has {children}: indices go from {-positions.length} to {positions.length - 1}."
    if all(node.positions is None for node in nodes):
        return f"None of the {len(nodes)} modules has positions: an index is for lists, and for one name with numbers."
    return ""


def _children(node: NameNode) -> tuple[str, ...]:
    return tuple(_paths(node.children.values()))


def _paths(nodes: Iterable[NameNode]) -> list[str]:
    return [spell(node.keys) for node in nodes if node.last > node.first]


def _classes(inventory: Inventory) -> tuple[str, ...]:
    owners = [owner for param in inventory.params for owner in reversed(param.owners)]
    owners += [module.owner for module in inventory.modules]
    return tuple(dict.fromkeys(owner.__qualname__ for owner in owners))
