"""Helpers for linen and Haiku, whose modes are arguments of calls and whose state is a dict beside the parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from frostline._core.errors import LayerError
from frostline._core.plan import Plan
from frostline.jax._arrays import described
from frostline.jax._uses.layout import keys_of

Keys = tuple[str, ...]


def in_evaluation(
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    modes: Mapping[str, Any],
    said: Collection[str] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments of a call with every mode argument set to evaluation, given or not.

    A flag is replaced if it is a bool or None, and a rate if it is not None: an array called ``train`` is not a mode.

    Args:
        method: the method.
        args: its positional arguments.
        kwargs: its keyword arguments.
        modes: the value in evaluation mode of each mode argument.
        said: the modes that an attribute of the module sets; a module whose default is None refuses to get one twice.

    Example:
        >>> def call(x, train=True): ...
        >>> in_evaluation(call, (1, True), {}, {"train": False})
        ((1, False), {})
    """
    kwargs = {name: modes[name] if _is_mode(name, value, modes) else value for name, value in kwargs.items()}
    try:
        signature = inspect.signature(method)
        bound = signature.bind_partial(*args, **kwargs)
    except (TypeError, ValueError):
        # It has no signature or another one, or the call is wrong and will raise its own error.
        return args, kwargs
    for name in modes.keys() & signature.parameters.keys():
        default = signature.parameters[name].default
        if _is_mode(name, bound.arguments.get(name, None if default is inspect.Parameter.empty else default), modes):
            bound.arguments[name] = None if name in said and default is None else modes[name]
    return bound.args, bound.kwargs


def says_mode(value: Any, in_evaluation: Any) -> bool:
    """Whether the value in evaluation mode replaces a value.

    Example:
        >>> says_mode(True, False), says_mode([1.0], False), says_mode(0.5, 0.0), says_mode(None, 0.0)
        (True, False, True, False)
    """
    if isinstance(in_evaluation, bool):
        return value is None or isinstance(value, bool | np.bool_)
    return value is not None


def frozen_modules(plan: Plan, keys_of: Callable[[str], Keys]) -> frozenset[Keys]:
    """Returns the modules with parameters, all of them frozen.

    Args:
        plan: the plan.
        keys_of: returns the keys of the module around a parameter, from its path.

    Example:
        >>> sorted(frozen_modules(Plan({"a.b.w", "a.c.w"}, {"d.w", "d.b.w"}), lambda path: tuple(path.split(".")[:-1])))
        [('a',), ('a', 'b'), ('a', 'c')]
    """
    return frozenset(_around(plan.frozen, keys_of) - _around(plan.trainable, keys_of))


def is_within(keys: Keys, modules: AbstractSet[Keys]) -> bool:
    """Whether a module is one of these or below one; a module without parameters belongs to the module around it."""
    return any(keys[:depth] in modules for depth in range(len(keys) + 1))


def _is_mode(name: str, value: Any, modes: Mapping[str, Any]) -> bool:
    return name in modes and says_mode(value, modes[name])


@contextmanager
def attributes(module: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """Changes attributes of a module in this context, even if the module refuses to have them set."""
    before = {name: getattr(module, name) for name in values}
    vars(module).update(values)
    try:
        yield
    finally:
        vars(module).update(before)


def restored(moved: Any, before: Any, stays: Callable[[Keys], bool]) -> Any:
    """Returns the tree that moved, with the earlier leaves wherever their keys must stay.

    Example:
        >>> restored({"a": {"mean": 2.0}, "b": {"mean": 3.0}}, {"a": {"mean": 1.0}}, lambda keys: keys[0] == "a")
        {'a': {'mean': 1.0}, 'b': {'mean': 3.0}}
    """
    old = {keys_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(before)}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: old.get(keys_of(path), leaf) if stays(keys_of(path)) else leaf, moved
    )


def no_layer(thing: Any, kinds: str) -> LayerError:
    """Returns the error for an object that is not a layer of these kinds."""
    return LayerError(
        "Frozen(layer)",
        f"holds {described(thing)}, but a frozen use takes {kinds}.",
        'Freeze parameters in place: params = frostline.jax.freeze(params, "encoder").',
    )


def _around(paths: Iterable[str], keys_of: Callable[[str], Keys]) -> set[Keys]:
    return {keys[:depth] for keys in map(keys_of, paths) for depth in range(len(keys) + 1)}
