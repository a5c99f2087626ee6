"""A training step of a function over a tree, traced without data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from frostline._core.errors import CostError
from frostline.jax._arrays import ARRAYS, is_param
from frostline.jax._cost.reader import StepReader
from frostline.jax._freezing.gradient import seen
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.survey import Survey
from frostline.jax._jaxpr.saved import aliases, depends_on_arrays, forward, nbytes
from frostline.jax._jaxpr.weights import FLOWS, MOVES, weight
from frostline.jax._lean.rewriting import Rewriting

_FAILURES = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)


@final
@dataclass(frozen=True)
class Step:
    """A traced step.

    Attributes:
        closed: the function, whose first inputs are the parameters.
        names: the paths of the parameters.
        moves: for each parameter, whether it is trained.
    """

    closed: ClosedJaxpr
    names: list[str]
    moves: list[bool]

    @classmethod
    def traced(
        cls,
        fn: Callable[..., Any],
        read: Survey,
        example: tuple[Any, ...],
        keywords: dict[str, Any],
        *,
        all_trained: bool,
    ) -> Step:
        """Traces a step.

        Raises:
            CostError: the function stops with an error on this example, or returns nothing that has a gradient.
        """
        leaves, structure = jax.tree.flatten((read.tree, example, keywords))
        weights = [[slot.leaf for slot in slots] for slots in read.places.values()]
        taken = {number for numbers in weights for number in numbers}
        # A function may read the other leaves while it is traced.
        data = [
            number
            for number, leaf in enumerate(leaves)
            if number not in taken and (is_param(leaf) or isinstance(leaf, jax.ShapeDtypeStruct))
        ]

        def of_arrays(own: list[Any], others: list[Any]) -> list[Any]:
            filled = dict(enumerate(leaves)) | dict(zip(data, others, strict=True))
            for numbers, each in zip(weights, own, strict=True):
                filled |= dict.fromkeys(numbers, each)
            tree, example, keywords = jax.tree.unflatten(structure, filled.values())
            returned = fn((strip if all_trained else seen)(tree), *example, **keywords)
            return [each for each in jax.tree.leaves(returned) if is_param(each) or isinstance(each, float)]

        given = [*map(_shown, example), *(f"{name}={_shown(value)}" for name, value in keywords.items())]
        expression = f"cost({', '.join(['fn', 'tree', *given])})"
        own = [leaves[numbers[0]] for numbers in weights]
        try:
            closed = jax.make_jaxpr(of_arrays)(own, [leaves[number] for number in data])
        except _FAILURES as error:
            problem = f"stops with {type(error).__name__}: {' '.join(str(error).split())}"
            shapes = tuple(f"{path} is {_shown(leaf)}" for path, leaf in zip(read.places, own, strict=True))
            fix = "Call it as in training: cost(fn, tree, *batch), where fn(tree, *batch) runs."
            raise CostError(expression, problem, shapes, fix) from error
        if not closed.out_avals:
            problem = "returns no floating array, but only floating arrays have gradients."
            fix = "Return the value to differentiate: cost(lambda tree, x: apply(tree, x).mean(), tree, x)."
            raise CostError(expression, problem, (), fix)
        moves = [all_trained or not slots[0].is_still for slots in read.places.values()]
        return cls(closed, list(read.places), moves)

    @cached_property
    def read(self) -> StepReader:
        """The reader of the step, which has read it."""
        reader = StepReader(self.names, self.moves)
        reader.through(self.closed, self._bits, [""] * len(self._bits), [True] * len(self.closed.out_avals))
        return reader

    @cached_property
    def saved(self) -> Counter[str]:
        """The bytes that are saved for backward, by unit."""
        return self._saved(self.closed, bits_of_a_flag=8)

    @cached_property
    def least_saved(self) -> Counter[str]:
        """The same at the limit: cheap steps are computed again, and a flag takes one bit."""
        # As if every parameter were data, so that a region may reach across all of them.
        bits = [FLOWS | each & MOVES for each in self._bits]
        return self._saved(Rewriting().of(self.closed, bits, [True] * len(bits)), bits_of_a_flag=1)

    @cached_property
    def _bits(self) -> list[int]:
        own = [weight(number) | MOVES * moved for number, moved in enumerate(self.moves)]
        return [*own, *[FLOWS] * (len(self.closed.in_avals) - len(own))]

    def _saved(self, closed: ClosedJaxpr, bits_of_a_flag: int) -> Counter[str]:
        passed = forward(closed, [bool(bits & MOVES) for bits in self._bits])
        jaxpr = passed.jaxpr
        reader = StepReader(self.names, self.moves)
        units = reader.through(passed, self._bits, [""] * len(self._bits), [False] * len(jaxpr.outvars))
        there, same = {*jaxpr.invars, *jaxpr.constvars}, aliases(jaxpr)
        found = Counter[str]()
        rows = zip(jaxpr.outvars, units, depends_on_arrays(passed), strict=True)
        for own, unit, is_made in list(rows)[len(self.closed.out_avals) :]:
            atom = same.get(own, own) if is_made else own
            if is_made and atom not in there:
                there.add(atom)
                size = nbytes(atom.aval)
                found[unit] += (size * bits_of_a_flag + 7) // 8 if atom.aval.dtype == jnp.bool_ else size
        return found


def _shown(value: Any) -> str:
    if isinstance(value, (*ARRAYS, jax.ShapeDtypeStruct)):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_shown, value))})"
    return repr(value)
