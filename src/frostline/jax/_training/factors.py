"""Factors of the learning rates, as a value that goes into compiled code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import jax
import numpy as np
from jax.tree_util import register_dataclass, tree_flatten, tree_unflatten

from frostline._core.errors import StructureError
from frostline._core.errors.base import listed
from frostline.jax._uses.slots import layout


@final
@partial(register_dataclass, data_fields=("values",), meta_fields=("names",))
@dataclass(frozen=True)
class Factors:
    """A factor of the learning rate for each name of a parameter, all in one array.

    Attributes:
        names: the names; part of the structure, the same for all phases, so other factors are no other trace.
        values: the factors, in the same order.
    """

    names: tuple[str, ...]
    values: Any

    @classmethod
    def of(cls, factors: Mapping[str, float]) -> Factors:
        """The value for some factors by name."""
        return cls(tuple(factors), np.array([*factors.values()], np.float64))

    def scaled(self, updates: Any) -> Any:
        """The updates of a transformation of Optax, each times the factor of its parameter.

        Args:
            updates: a tree of the structure of the parameters; what is None or not there stays so.

        Raises:
            StructureError: within ``jit`` the factors are a constant; or there are updates of other names.
        """
        leaves, structure = tree_flatten(updates)
        if isinstance(self.values, np.ndarray) and any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            raise StructureError(_SCALED, "is called in compiled code with the factors of one step for all.", (), _FIX)
        names = {slot.leaf: slot.name for slot in reversed(layout(updates, structure).slots)}
        places = {name: place for place, name in enumerate(self.names)}
        if unknown := [name for name in names.values() if name not in places]:
            problem = f"got updates of {len(unknown)} of {len(names)} names for which there is no factor:"
            fix = "Scale the updates of the tree that the driver was started with."
            raise StructureError(_SCALED, problem, tuple(line.strip() for line in listed(unknown, 5)), fix)
        values = jax.numpy.asarray(self.values)
        scaled = [
            leaf * values[places[names[number]]].astype(jax.numpy.result_type(leaf))
            for number, leaf in enumerate(leaves)
        ]
        return tree_unflatten(structure, scaled)


_SCALED = "factors.scaled(updates)"
_FIX = "Hand them over as an argument: train(params, state, batch, driver.factors)."
