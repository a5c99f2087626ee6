"""A model traced for some number of samples, and cut in two at chosen values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.tree_util import PyTreeDef, tree_unflatten

from frostline.jax._jaxpr.dependence import ABOVE, MOVES, VARIES, dependence
from frostline.jax._jaxpr.equations import part, variables
from frostline.jax._jaxpr.split import divided
from frostline.jax._line.model import Model


@final
@dataclass(frozen=True)
class CrossingValue:
    """A value that crosses the line.

    Attributes:
        place: its place among the values of the trace.
        axis: the dimension of the samples.
        rows: how many entries of that dimension one sample has.
    """

    place: int
    axis: int
    rows: int

    def sample_first(self, value: Any, samples: int) -> Any:
        """The value with a dimension of its own for the samples, which comes first."""
        if self.rows > 1:
            value = value.reshape(*value.shape[: self.axis], samples, self.rows, *value.shape[self.axis + 1 :])
        return jnp.moveaxis(value, self.axis, 0)


@final
@dataclass(frozen=True)
class ModelTrace:
    """The trace of a model for one number of samples.

    Attributes:
        closed: the function of the arrays of the tree and of the inputs, with mixed calls divided.
        arrays: how many arrays the tree has.
        samples: how many samples there are.
        bits: what each variable depends on.
        returned: the structure of the model's result.
    """

    closed: ClosedJaxpr
    arrays: int
    samples: int
    bits: dict[Any, int]
    returned: PyTreeDef

    @classmethod
    def of(cls, model: Model, samples: int) -> ModelTrace:
        """Traces a model."""
        closed, returned = model.traced(samples)
        bits = [MOVES if moves else 0 for moves in model.moves] + [VARIES] * len(model.samples)
        opened = divided(closed, bits)
        return cls(opened, len(model.moves), samples, dependence(opened, bits), returned)

    @cached_property
    def values(self) -> list[Any]:
        """Every variable, the inputs first. A value has the same place for any number of samples."""
        jaxpr = self.closed.jaxpr
        return [*jaxpr.invars, *(atom for equation in jaxpr.eqns for atom in equation.outvars)]

    @cached_property
    def places(self) -> dict[Any, int]:
        """The place of each variable."""
        return {atom: place for place, atom in enumerate(self.values)}

    @cached_property
    def maker(self) -> dict[Any, Any]:
        """The equation that computes each variable."""
        return {atom: equation for equation in self.closed.jaxpr.eqns for atom in equation.outvars}

    def needed_above(self) -> Iterator[Any]:
        """The values below that an equation above reads, or that are returned."""
        jaxpr = self.closed.jaxpr
        moving = (each for each in jaxpr.eqns if any(self.bits[atom] & ABOVE for atom in each.outvars))
        atoms = [*(atom for equation in moving for atom in variables(equation.invars)), *variables(jaxpr.outvars)]
        return (atom for atom in dict.fromkeys(atoms) if self.bits[atom] == VARIES)


@final
class DividedTrace:
    """The two sides of a line for one number of samples.

    Attributes:
        below_jaxpr: from the arrays of the tree and the inputs to the values that cross.
        compiled: `below`, compiled.
    """

    def __init__(self, trace: ModelTrace, crossings: Sequence[CrossingValue]) -> None:
        jaxpr, values = trace.closed.jaxpr, [trace.values[each.place] for each in crossings]
        self._trace, self._crossings, self._shapes = trace, crossings, [value.aval.shape for value in values]
        self.below_jaxpr = part(trace.closed, jaxpr.invars, values)
        self._below: Callable[..., list[Any]] = jaxpr_as_fun(self.below_jaxpr)
        above = part(trace.closed, [*jaxpr.invars[: trace.arrays], *values], jaxpr.outvars)
        self._above: Callable[..., list[Any]] = jaxpr_as_fun(above)
        self.compiled: Callable[..., tuple[Any, ...]] = jax.jit(self.below)

    def below(self, arrays: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The values that cross, samples first."""
        found = zip(self._crossings, self._below(*arrays, *inputs), strict=True)
        return tuple(each.sample_first(value, self._trace.samples) for each, value in found)

    def above(self, arrays: Sequence[Any], boundary: Sequence[Any]) -> Any:
        """The result of the model."""
        found = zip(self._crossings, boundary, self._shapes, strict=True)
        values = (jnp.moveaxis(value, 0, each.axis).reshape(shape) for each, value, shape in found)
        return tree_unflatten(self._trace.returned, self._above(*arrays, *values))
