"""Factors of the learning rate: by rule, and as a value that goes into compiled code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, final

import jax
import numpy as np
from jax.tree_util import PyTreeDef, register_dataclass, tree_flatten, tree_unflatten

from frostline._core.errors import BindError, StructureError
from frostline._core.errors.base import counted, listed
from frostline._core.rules import Rule, options_by_path
from frostline.jax._freezing.survey import survey
from frostline.jax._uses.layout import layout

Rates = Mapping[str, float]


def rates(rules: Sequence[Rule]) -> Callable[[Any], Rates]:
    """A function from a tree to the factors of its parameters by name, frozen ones included; cached by structure.

    Raises:
        BindError: a rule has an option other than ``lr_scale``.
    """
    for rule in rules:
        _check_options(rule)

    @lru_cache(maxsize=64)
    def found(structure: PyTreeDef, shapes: tuple[Any, ...]) -> Rates:
        read = survey(tree_unflatten(structure, shapes))
        options = options_by_path(rules, read.inventory)
        factors = {path: option["lr_scale"] for path, option in options.items() if "lr_scale" in option}
        return {slot.name: factor for path, factor in factors.items() for slot in read.places[path]}

    def of_tree(tree: Any) -> Rates:
        leaves, structure = tree_flatten(tree)
        return found(structure, tuple(map(_shape, leaves)))

    return of_tree


def scaled(updates: Any, names: Sequence[str], rates: Rates) -> Any:
    """The updates, each times the factor of its parameter; `names` are those of the updates."""
    leaves, structure = tree_flatten(updates)
    pairs = zip(names, leaves, strict=True)
    return tree_unflatten(structure, [leaf * rates[name] if name in rates else leaf for name, leaf in pairs])


def _shape(leaf: Any) -> Any:
    # Numbers and functions are not parameters; None would change the structure.
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") and hasattr(leaf, "shape") else 0


def _check_options(rule: Rule) -> None:
    others = sorted(rule.options.keys() - {"lr_scale"})
    if others:
        raise BindError(
            repr(rule),
            f"has {counted(len(others), 'option')} that cannot be changed from outside an Optax transformation: "
            f"{', '.join(others)}. The only option is:",
            ("lr_scale",),
            "Set it inside, by a mask or by labels: optax.add_decayed_weights(0.1, mask=lambda tree: "
            "jax.tree.map(lambda leaf: leaf.ndim > 1, tree)), or optax.partition(transforms, labels).",
        )


@final
@partial(register_dataclass, data_fields=("values",), meta_fields=("names",))
@dataclass(frozen=True)
class Factors:
    """A factor of the learning rate for each name of a parameter, all in one array.

    Attributes:
        names: the names. They are structure, and the same in all phases, so other factors need no new trace.
        values: the factors, in the same order.
    """

    names: tuple[str, ...]
    values: Any

    @classmethod
    def of(cls, factors: Mapping[str, float]) -> Factors:
        """Makes the value from factors by name."""
        return cls(tuple(factors), np.array([*factors.values()], np.float64))

    def scaled(self, updates: Any) -> Any:
        """The updates of an Optax transformation, each times the factor of its parameter.

        Args:
            updates: a tree with the structure of the parameters; it may lack leaves, or have None.

        Raises:
            StructureError: the factors are a constant inside ``jit``; or there are updates of other names.
        """
        leaves, structure = tree_flatten(updates)
        if isinstance(self.values, np.ndarray) and any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise StructureError(
                _SCALED,
                "is called in compiled code with the factors of one step as a constant.",
                (),
                "Pass them as an argument: train(params, state, batch, driver.factors).",
            )
        names = {slot.leaf: slot.name for slot in reversed(layout(updates, structure).slots)}
        places = {name: place for place, name in enumerate(self.names)}
        if unknown := [name for name in names.values() if name not in places]:
            problem = f"got updates with {len(unknown)} of {len(names)} names that have no factor:"
            fix = "Scale the updates of the tree that the driver was started with."
            raise StructureError(_SCALED, problem, tuple(line.strip() for line in listed(unknown, 5)), fix)
        values = jax.numpy.asarray(self.values)
        scaled = [
            leaf * values[places[names[number]]].astype(jax.numpy.result_type(leaf))
            for number, leaf in enumerate(leaves)
        ]
        return tree_unflatten(structure, scaled)


_SCALED = "factors.scaled(updates)"
