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

from frostline.jax._jaxpr.model import Model
from frostline.jax._jaxpr.split import ABOVE, MOVES, VARIES, colours, part, taken_apart, variables


@final
@dataclass(frozen=True)
class Crossing:
    """A value that crosses the line.

    Attributes:
        place: where it is among the values of the trace.
        axis: the dimension in which samples lie.
        rows: how many entries of that dimension a sample has.
    """

    place: int
    axis: int
    rows: int

    def sample_first(self, value: Any, samples: int) -> Any:
        """The value with a dimension of its own for the samples, which comes first."""
        if self.rows > 1:
            value = value.reshape(*value.shape[: self.axis], samples, self.rows, *value.shape[self.axis + 1 :])
        return jnp.moveaxis(value, self.axis, 0)

    def put_back(self, value: Any, shape: tuple[int, ...]) -> Any:
        """The value as the trace has it."""
        return jnp.moveaxis(value, 0, self.axis).reshape(shape)


@final
@dataclass(frozen=True)
class Trace:
    """A model for one number of samples.

    Attributes:
        closed: the function of the arrays of the tree and of the inputs, taken apart.
        arrays: how many arrays the tree has.
        samples: how many samples there are.
        bits: what each variable depends on.
        returned: the structure of what the model returns.
    """

    closed: ClosedJaxpr
    arrays: int
    samples: int
    bits: dict[Any, int]
    returned: PyTreeDef

    @classmethod
    def of(cls, model: Model, samples: int) -> Trace:
        """The trace of a model."""
        closed, returned = model.traced(samples)
        bits = [MOVES if moves else 0 for moves in model.moves] + [VARIES] * len(model.samples)
        apart = taken_apart(closed, bits)
        return cls(apart, len(model.moves), samples, colours(apart, bits), returned)

    @cached_property
    def values(self) -> list[Any]:
        """Every variable: inputs first, then as they are computed. The same places for any number of samples."""
        jaxpr = self.closed.jaxpr
        return [*jaxpr.invars, *(atom for equation in jaxpr.eqns for atom in equation.outvars)]

    @cached_property
    def places(self) -> dict[Any, int]:
        """The place of each variable."""
        return {atom: place for place, atom in enumerate(self.values)}

    @cached_property
    def maker(self) -> dict[Any, Any]:
        """The equation that computes a variable."""
        return {atom: equation for equation in self.closed.jaxpr.eqns for atom in equation.outvars}

    @property
    def steps(self) -> list[str]:
        """What is computed, by the names of the primitives."""
        return [equation.primitive.name for equation in self.closed.jaxpr.eqns]

    def crossing(self) -> Iterator[Any]:
        """The values that vary and are read by what moves, or are returned: what partial evaluation would keep."""
        jaxpr = self.closed.jaxpr
        moving = (each for each in jaxpr.eqns if any(self.bits[atom] & ABOVE for atom in each.outvars))
        atoms = [*(atom for equation in moving for atom in variables(equation.invars)), *variables(jaxpr.outvars)]
        return (atom for atom in dict.fromkeys(atoms) if self.bits[atom] == VARIES)

    def below(self, crossings: Sequence[Crossing]) -> ClosedJaxpr:
        """From the arrays of the tree and the inputs to the values that cross."""
        return part(self.closed, self.closed.jaxpr.invars, [self.values[each.place] for each in crossings])

    def above(self, crossings: Sequence[Crossing]) -> ClosedJaxpr:
        """From the arrays of the tree and the values that cross to what the model returns."""
        given = [*self.closed.jaxpr.invars[: self.arrays], *(self.values[each.place] for each in crossings)]
        return part(self.closed, given, self.closed.jaxpr.outvars)


@final
class Halves:
    """A trace cut in two."""

    def __init__(self, trace: Trace, crossings: Sequence[Crossing]) -> None:
        self._trace, self._crossings = trace, crossings
        self.below_jaxpr, self.above_jaxpr = trace.below(crossings), trace.above(crossings)
        self._shapes = [trace.values[each.place].aval.shape for each in crossings]
        self._below: Callable[..., list[Any]] = jaxpr_as_fun(self.below_jaxpr)
        self._above: Callable[..., list[Any]] = jaxpr_as_fun(self.above_jaxpr)
        self.compiled: Callable[..., tuple[Any, ...]] = jax.jit(self.below)

    def below(self, arrays: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The values that cross, samples first."""
        found = zip(self._crossings, self._below(*arrays, *inputs), strict=True)
        return tuple(each.sample_first(value, self._trace.samples) for each, value in found)

    def above(self, arrays: Sequence[Any], boundary: Sequence[Any]) -> Any:
        """What the model returns."""
        found = zip(self._crossings, boundary, self._shapes, strict=True)
        values = (each.put_back(value, shape) for each, value, shape in found)
        return tree_unflatten(self._trace.returned, self._above(*arrays, *values))
