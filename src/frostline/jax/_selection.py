"""From what a user points at to paths: strings, selectors, and objects of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from frostline._core.errors import NoMatchError, SelectorError
from frostline._core.resolve import resolve
from frostline._core.selectors import Selector, at
from frostline.jax._arrays import ARRAYS, described
from frostline.jax._marked import bare
from frostline.jax._slots import children, keys_of
from frostline.jax._survey import Survey
from frostline.jax._window import inner_of, is_window


def select(choices: Sequence[Any], read: Survey, *, expect: int | None, allow_empty: bool) -> frozenset[str]:
    """The paths of the tree that the choices name.

    Raises:
        NoMatchError: a choice names nothing, or is no part of the tree.
        SelectorError: a choice is none of the kinds that can be named.
    """
    selectors = [_selector(choice, read) for choice in choices]
    return resolve(selectors, read.inventory, expect=expect, allow_empty=allow_empty)


def written(first: str, choices: Sequence[Any]) -> str:
    """Arguments as their author wrote them, as far as that can be told."""
    labels = (repr(c) if isinstance(c, str | Selector) else _label(c) for c in choices)
    return ", ".join((first, *labels))


def _selector(choice: Any, read: Survey) -> str | Selector:
    if isinstance(choice, str | Selector):
        return choice
    if not isinstance(choice, ARRAYS) and children(choice) is None:
        raise SelectorError(
            repr(choice),
            f"is {described(choice)}; a selector is a string, a selector value, or a module or array of the tree.",
            "Pass several selectors one by one: freeze(tree, *selectors).",
        )
    wanted = inner_of(choice)
    paths = list(_paths(wanted, bare(read.tree), ()))
    if not paths:
        raise NoMatchError(_label(choice), len(read.inventory.params), note=_why(choice))
    return at(*paths, label=_label(choice))


def _paths(wanted: Any, node: Any, keys: tuple[str, ...]) -> list[str]:
    if _is_same(node, wanted):
        return [".".join(keys)]
    if is_window(node):
        return _paths(wanted, inner_of(node), keys)
    below = children(node) or []
    return [path for key, child in below for path in _paths(wanted, child, keys + keys_of(key))]


def _is_same(node: Any, wanted: Any) -> bool:
    """Whether two nodes are one: a tree that is seen through its marks makes its nodes anew, but not its arrays."""
    if node is wanted or isinstance(wanted, ARRAYS) or is_window(node):
        return node is wanted
    mine, yours = jax.tree.leaves(node), jax.tree.leaves(wanted)
    pairs = [(one, other) for one, other in zip(mine, yours, strict=False) if isinstance(other, ARRAYS)]
    shapes: list[Any] = [jax.tree.structure(node), jax.tree.structure(wanted)]
    return bool(pairs) and shapes[0] == shapes[1] and all(one is other for one, other in pairs)


def _why(choice: Any) -> str:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(choice)):
        return "It is being traced, and inside of jit an array is another object: names say what is."
    return "It is no part of this tree, or not any more: names say what is."


def _label(choice: Any) -> str:
    if isinstance(choice, ARRAYS):
        return f"<Array of shape {choice.shape}>"
    return f"<{type(inner_of(choice)).__name__}>"
