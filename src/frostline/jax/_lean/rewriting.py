"""A traced function once more, with regions of it that are done again during backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from itertools import groupby
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from frostline.jax._jaxpr.saved import Saved
from frostline.jax._jaxpr.weights import MOVES, Weights, calls
from frostline.jax._lean.lean_regions import Plot, Region, variables
from frostline.jax._lean.regions import Choice

# Into these a region may be written. Rules, and checkpoints of others, stay as they are.
_OPENED = frozenset({"closed_call", "cond", "jit", "pjit", "scan"})

Step = tuple[Region, Callable[..., list[Any]]]


@final
class Rewriting:
    """The rewriting of a function, and of those that it calls."""

    def __init__(self) -> None:
        self._flow = Weights()
        self._known: dict[Any, Saved] = {}

    def of(self, closed: ClosedJaxpr, bits: list[int], held: list[bool]) -> ClosedJaxpr:
        """The function that keeps less; the very same one, if there is none.

        Args:
            closed: the function.
            bits: those of its inputs.
            held: of each input, whether it is there anyway.
        """
        if closed.effects:
            return closed
        inputs = closed.jaxpr.invars
        known = dict.fromkeys(closed.jaxpr.constvars, 0) | dict(zip(inputs, bits, strict=True))
        free = {*closed.jaxpr.constvars, *(atom for atom, is_held in zip(inputs, held, strict=True) if is_held)}
        equations = [self._equation(equation, known, free) for equation in closed.jaxpr.eqns]
        jaxpr = closed.jaxpr.replace(eqns=equations)
        plot = Plot(jaxpr, known)
        chosen = Choice(plot, free, self._known).made()
        if not chosen and all(new is old for new, old in zip(equations, closed.jaxpr.eqns, strict=True)):
            return closed
        steps = list(_steps(plot, chosen))

        def rewritten(*inputs: Any) -> list[Any]:
            return _run(jaxpr, steps, [*closed.consts, *inputs])

        return jax.make_jaxpr(rewritten)(*closed.in_avals)

    def _equation(self, equation: Any, known: dict[Any, int], free: set[Any]) -> Any:
        """The equation, with what it calls rewritten; what is known of its results is noted."""
        bits = [0 if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
        results = self._flow.results(equation, bits)
        known.update(zip(equation.outvars, results, strict=True))
        if equation.primitive.name not in _OPENED or not any(each & MOVES for each in results):
            return equation
        held = _held_inside(equation, [isinstance(atom, Literal) or atom in free for atom in equation.invars])
        found = list(calls(equation, bits, results))
        new = tuple(self.of(call.closed, call.bits, held) for call in found)
        if all(function is call.closed for function, call in zip(new, found, strict=True)):
            return equation
        key = found[0].key
        return equation.replace(params=equation.params | {key: new if key == "branches" else new[0]})


def _held_inside(equation: Any, held: list[bool]) -> list[bool]:
    """Of each input of what an equation calls, whether it is there anyway."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        return held[1:]
    if name == "scan":
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        return [*held[:first], *[False] * (last - first), *held[last:]]
    return held


def _steps(plot: Plot, chosen: list[Region]) -> Iterator[Step]:
    """Regions that are done again, and in between what is not, in an order in which all can be computed."""
    equations = plot.jaxpr.eqns
    place = {number: each.equations[0] for each in chosen for number in each.equations}
    maker = {atom: number for number, equation in enumerate(equations) for atom in equation.outvars}
    graph: dict[int, set[int]] = {}
    for number, equation in enumerate(equations):
        own = place.get(number, number)
        before = {maker[atom] for atom in variables(equation.invars) if atom in maker}
        graph.setdefault(own, set()).update({place.get(each, each) for each in before} - {own})
    order = list(TopologicalSorter(graph).static_order())
    regions = {each.equations[0]: each for each in chosen}
    for region, numbers in groupby(order, lambda number: regions.get(number)):
        if region is None:
            plain = plot.region(list(numbers))
            yield plain, jaxpr_as_fun(plain.closed)
        else:
            yield region, jax.checkpoint(jaxpr_as_fun(region.closed))


def _run(jaxpr: Jaxpr, steps: list[Step], inputs: list[Any]) -> list[Any]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))
    for region, function in steps:
        results = function(*(known[atom] for atom in region.inputs))
        known.update(zip(region.outputs, results, strict=True))
    return [atom.val if isinstance(atom, Literal) else known[atom] for atom in jaxpr.outvars]
