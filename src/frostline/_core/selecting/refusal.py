"""Refuses what is no selector, and says how to select what was meant."""

from __future__ import annotations

from typing import Any

from frostline._core.errors import SelectorError
from frostline._core.selecting.expressions import Selector


def not_a_selector(choice: Any, *, whole: str, part: str) -> SelectorError:
    """Returns the error for an argument that is no selector.

    Args:
        choice: the argument.
        whole: what is selected from, "model" or "tree".
        part: what a part of it is called, "a module or parameter".

    Example:
        >>> print(not_a_selector(dict, whole="model", part="a module or parameter"))
        dict is a class; a selector is a string, a selector value, or a module or parameter of the model.
        Select by type: freeze(model, of_type(dict)).
    """
    shown, kind, fix = repr(choice), f"of type {type(choice).__name__}", f"Write a path: freeze({whole}, 'encoder')."
    if isinstance(choice, type):
        shown, kind = choice.__qualname__, "a class"
        fix = f"Select by type: freeze({whole}, of_type({shown}))."
    elif isinstance(choice, list | tuple) and all(isinstance(item, str | Selector) for item in choice):
        fix = f"Pass several selectors one by one: freeze({whole}, *selectors)."
    elif isinstance(choice, tuple) and choice and isinstance(choice[0], str):
        shown, kind = f"({choice[0]!r}, ...)", "a name with its tensor"
        fix = f"Pass the name alone: freeze({whole}, {choice[0]!r})."
    elif callable(choice):
        shown, kind = getattr(choice, "__name__", shown), "a function"
        fix = f"Select by a condition: freeze({whole}, where(lambda p: p.ndim == 1))."
    problem = f"is {kind}; a selector is a string, a selector value, or {part} of the {whole}."
    return SelectorError(shown, problem, fix)
