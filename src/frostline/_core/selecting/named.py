"""Parameters that selectors name individually, by their own paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from frostline._core.inventory import Inventory
from frostline._core.selecting.expressions import Difference, Intersection, Selector, Union
from frostline._core.selecting.match import nodes_of
from frostline._core.selecting.pattern import Item, Key, parse
from frostline._core.selecting.selectors import at, glob
from frostline._core.selecting.text import selector_of


def named(selectors: Iterable[str | Selector], inventory: Inventory) -> frozenset[str]:
    """Returns the canonical paths of the parameters that selectors name by their own paths.

    A module, a pattern or a predicate does not count, even if it matches only one parameter.

    Example:
        >>> from frostline._core.inventory import Inventory
        >>> from frostline._core.param import Param
        >>> model = Inventory(tuple(Param(path, (2,), "float32", 4) for path in ("pos", "body.weight", "body.bias")))
        >>> sorted(named(["pos", "body", "**.bias"], model)), sorted(named([glob("body.bias") | glob("*")], model))
        (['pos'], ['body.bias'])
    """
    leaves = (leaf for selector in selectors for leaf in _leaves(selector))
    return frozenset(path for leaf in leaves for path in _own_paths(leaf, inventory))


def _leaves(selector: str | Selector) -> Iterator[Selector]:
    match selector:
        case str():
            if not selector.startswith("!"):
                yield from _leaves(selector_of(selector))
        case Union(left, right) | Intersection(left, right):
            yield from (*_leaves(left), *_leaves(right))
        case Difference(left, _):
            yield from _leaves(left)
        case _:
            yield selector


def _own_paths(leaf: Selector, inventory: Inventory) -> Iterator[str]:
    tree = inventory.tree
    match leaf:
        case glob(pattern) if all(isinstance(step, Key) or _is_position(step) for step in parse(pattern)):
            nodes = nodes_of(pattern, tree)
        case at(paths):
            nodes = [node for path in paths if (node := tree.find(path)) is not None]
        case _:
            nodes = []
    yield from (node.param.path for node in nodes if node.param is not None)


def _is_position(step: object) -> bool:
    return isinstance(step, Item) and isinstance(step.index, int)
