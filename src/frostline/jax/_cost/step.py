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
from frostline.jax._arrays import ARRAYS, is_param, nbytes
from frostline.jax._cost.walk import Walk
from frostline.jax._freezing.gradient import seen
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.survey import Survey
from frostline.jax._jaxpr.saved import aliases, are_made_of_something, forward
from frostline.jax._jaxpr.saved import nbytes as bytes_of
from frostline.jax._jaxpr.weights import FLOWS, MOVES, weight
from frostline.jax._lean.rewriting import Rewriting

_FAILURES = (TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)


@final
@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        closed: the function, of the parameters first.
        names: the paths of the parameters.
        moves: of each parameter, whether it is trained.
    """

    closed: ClosedJaxpr
    names: list[str]
    moves: list[bool]

    @cached_property
    def walk(self) -> Walk:
        """What it does."""
        walk = Walk(self.names, self.moves)
        walk.through(self.closed, self._bits, self._units, [True] * len(self.closed.out_avals))
        return walk

    @cached_property
    def saved(self) -> Counter[str]:
        """The bytes that are kept for backward, by unit."""
        return self._saved(self.closed, bits_of_a_flag=8)

    @cached_property
    def least_saved(self) -> Counter[str]:
        """The same, where all that is cheap is computed again, and a flag is one bit."""
        # To what is no weight a region may reach everywhere.
        bits = [FLOWS | each & MOVES for each in self._bits]
        return self._saved(Rewriting().of(self.closed, bits, [True] * len(bits)), bits_of_a_flag=1)

    def _saved(self, closed: ClosedJaxpr, bits_of_a_flag: int) -> Counter[str]:
        count = len(self.closed.out_avals)
        kept = forward(closed, self._are_moving)
        jaxpr = kept.jaxpr
        units = Walk(self.names, self.moves).through(kept, self._bits, self._units, [False] * len(jaxpr.outvars))
        there, same = {*jaxpr.invars, *jaxpr.constvars}, aliases(jaxpr)
        found = Counter[str]()
        rows = zip(jaxpr.outvars, units, are_made_of_something(kept), strict=True)
        for own, unit, is_made in list(rows)[count:]:
            atom = same.get(own, own) if is_made else own
            if is_made and atom not in there:
                there.add(atom)
                size = bytes_of(atom.aval)
                found[unit] += (size * bits_of_a_flag + 7) // 8 if atom.aval.dtype == jnp.bool_ else size
        return found

    @cached_property
    def _are_moving(self) -> list[bool]:
        return [*self.moves, *[False] * (len(self.closed.in_avals) - len(self.moves))]

    @cached_property
    def _bits(self) -> list[int]:
        own = [weight(number) | MOVES * moved for number, moved in enumerate(self.moves)]
        return [*own, *[FLOWS] * (len(self.closed.in_avals) - len(own))]

    @cached_property
    def _units(self) -> list[str]:
        return [""] * len(self.closed.in_avals)


@final
@dataclass(frozen=True)
class Asked:
    """A function, the tree that it trains, and an example of what else it is called with."""

    fn: Callable[..., Any]
    read: Survey
    example: tuple[Any, ...]
    keywords: dict[str, Any]

    @cached_property
    def arguments(self) -> int:
        """Bytes of the tree and of the example."""
        arrays = {id(leaf): leaf for leaf in jax.tree.leaves((self.read.tree, self.example, self.keywords))}
        return sum(map(nbytes, arrays.values()))

    def step(self, *, all_trained: bool) -> Step:
        """Traces a step.

        Raises:
            CostError: the function stops with an error on this example, or returns nothing with a gradient.
        """
        places = self.read.places
        leaves, structure = jax.tree.flatten((self.read.tree, self.example, self.keywords))
        weights = [[slot.leaf for slot in slots] for slots in places.values()]
        taken = {number for numbers in weights for number in numbers}
        # All else is what it is: a function may read it while it is traced.
        data = [n for n, leaf in enumerate(leaves) if n not in taken and _is_data(leaf)]

        def of_arrays(own: list[Any], others: list[Any]) -> list[Any]:
            filled = dict(enumerate(leaves)) | dict(zip(data, others, strict=True))
            for numbers, each in zip(weights, own, strict=True):
                filled |= dict.fromkeys(numbers, each)
            tree, example, keywords = jax.tree.unflatten(structure, filled.values())
            returned = self.fn((strip if all_trained else seen)(tree), *example, **keywords)
            return [each for each in jax.tree.leaves(returned) if _is_floating(each)]

        own = [leaves[numbers[0]] for numbers in weights]
        try:
            closed = jax.make_jaxpr(of_arrays)(own, [leaves[number] for number in data])
        except _FAILURES as error:
            raise self._stopped(error) from error
        if not closed.out_avals:
            raise CostError(
                self.expression, "returns no floating array, and only such a one has a gradient.", (), _LOSS
            )
        moves = [all_trained or not slots[0].is_still for slots in places.values()]
        return Step(closed, list(places), moves)

    @property
    def expression(self) -> str:
        """What was asked."""
        given = [_described(value) for value in self.example]
        given += [f"{name}={_described(value)}" for name, value in self.keywords.items()]
        return f"cost({', '.join(['fn', 'tree', *given])})"

    def _stopped(self, error: Exception) -> CostError:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        shapes = [
            f"{path} is {_described(self.read.leaves[slots[0].leaf])}" for path, slots in self.read.places.items()
        ]
        fix = "Call it as in training: cost(fn, tree, *batch), where fn(tree, *batch) runs."
        return CostError(self.expression, f"stops with {reason}", tuple(shapes), fix)


_LOSS = "Return what is differentiated: cost(lambda tree, x: apply(tree, x).mean(), tree, x)."


def _is_data(leaf: Any) -> bool:
    return is_param(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _is_floating(value: Any) -> bool:
    return is_param(value) or isinstance(value, float)


def _described(value: Any) -> str:
    if isinstance(value, (*ARRAYS, jax.ShapeDtypeStruct)):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_described(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_described, value))})"
    return repr(value)
