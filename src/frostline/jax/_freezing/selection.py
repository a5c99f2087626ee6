"""From what a user points at to paths: strings, selectors, and objects of the tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from frostline._core.errors import NoMatchError, SelectorError
from frostline._core.selecting.resolve import resolve
from frostline._core.selecting.selectors import Selector, at
from frostline.jax._arrays import ARRAYS, described
from frostline.jax._freezing.objects import Objects
from frostline.jax._freezing.survey import Survey
from frostline.jax._uses.slots import children
from frostline.jax._uses.window import inner_of


def select(choices: Sequence[Any], read: Survey, *, expect: int | None, allow_empty: bool) -> frozenset[str]:
    """The paths of the tree that the choices name.

    Raises:
        NoMatchError: a choice names nothing, or is no part of the tree.
        SelectorError: a choice is none of the kinds that can be named.
    """
    objects = Objects(read)
    selectors = [_selector(choice, objects) for choice in choices]
    return resolve(selectors, read.inventory, expect=expect, allow_empty=allow_empty)


def written(first: str, choices: Sequence[Any]) -> str:
    """Arguments as their author wrote them, as far as that can be told."""
    labels = (repr(c) if isinstance(c, str | Selector) else _label(c) for c in choices)
    return ", ".join((first, *labels))


def _selector(choice: Any, objects: Objects) -> str | Selector:
    if isinstance(choice, str | Selector):
        return choice
    if _is_no_part(choice):
        raise SelectorError(
            repr(choice),
            f"is {described(choice)}; a selector is a string, a selector value, or a module or array of the tree.",
            "Pass several selectors one by one: freeze(tree, *selectors).",
        )
    paths = objects.paths(choice)
    if not paths:
        raise NoMatchError(_label(choice), len(objects.read.inventory.params), note=_why(choice))
    return at(*paths, label=_label(choice))


def _is_no_part(choice: Any) -> bool:
    """Whether it can be in no tree: a leaf that is no array, or several selectors at once."""
    if isinstance(choice, list | tuple) and choice and all(isinstance(item, str | Selector) for item in choice):
        return True
    return not isinstance(choice, ARRAYS) and children(choice) is None


def _why(choice: Any) -> str:
    leaves = jax.tree.leaves(choice)
    if leaves and all(isinstance(leaf, bool) for leaf in leaves):
        return "It is a mask, and a selector says what to freeze by its names; a mask of what trains is mask(tree)."
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return "It is being traced, and inside of jit an array is another object: names say what is."
    return "It is no part of this tree, or not any more: names say what is."


def _label(choice: Any) -> str:
    if isinstance(choice, ARRAYS):
        return f"<Array of shape {choice.shape}>"
    return f"<{type(inner_of(choice)).__name__}>"
