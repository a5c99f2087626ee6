"""Factors of the learning rate, by rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
from jax.tree_util import PyTreeDef, tree_flatten, tree_unflatten

from frostline._core.errors import BindError
from frostline._core.errors.base import counted
from frostline._core.rules import Rule, options_by_path
from frostline.jax._freezing.survey import survey

Rates = Mapping[str, float]


def rates(rules: Sequence[Rule]) -> Callable[[Any], Rates]:
    """From a tree to the factors of its parameters by name, frozen ones too; found once for each structure.

    Raises:
        BindError: a rule has an option other than ``lr_scale``.
    """
    for rule in rules:
        _check_options(rule)

    @lru_cache(maxsize=64)
    def found(structure: PyTreeDef, shapes: tuple[Any, ...]) -> Rates:
        # Shapes are no objects of the tree: arrays that are one are so by its marks alone, within jit and outside.
        read = survey(tree_unflatten(structure, shapes))
        options = options_by_path(rules, read.inventory)
        factors = {path: option["lr_scale"] for path, option in options.items() if "lr_scale" in option}
        return {slot.name: factor for path, factor in factors.items() for slot in read.places[path]}

    def of_tree(tree: Any) -> Rates:
        leaves, structure = tree_flatten(tree)
        return found(structure, tuple(map(_shape, leaves)))

    return of_tree


def scaled(updates: Any, names: Sequence[str], rates: Rates) -> Any:
    """The updates, each times the factor of its parameter; `names` are theirs."""
    leaves, structure = tree_flatten(updates)
    pairs = zip(names, leaves, strict=True)
    return tree_unflatten(structure, [leaf * rates[name] if name in rates else leaf for name, leaf in pairs])


def _shape(leaf: Any) -> Any:
    # Numbers and functions are no parameters; None would be another structure.
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else 0


def _check_options(rule: Rule) -> None:
    others = sorted(rule.options.keys() - {"lr_scale"})
    if others:
        raise BindError(
            repr(rule),
            f"has {counted(len(others), 'option')} that cannot be changed from outside of a transformation of Optax: "
            f"{', '.join(others)}. There is:",
            ("lr_scale",),
            "Say it inside, with a mask or with labels: optax.add_decayed_weights(0.1, mask=lambda tree: "
            "jax.tree.map(lambda leaf: leaf.ndim > 1, tree)), or optax.partition(transforms, labels).",
        )
