"""The rewriting of a traced function, so that regions of it are computed again during backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from itertools import groupby
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from frostline.jax._jaxpr.equations import carried, variables
from frostline.jax._jaxpr.saved import SavedArrays
from frostline.jax._jaxpr.weights import MOVES, WeightFlow, calls
from frostline.jax._lean.regions import Region, RegionChoice, RegionMap

# Calls that are rewritten inside. Functions with a rule of their own, and a user's checkpoints, stay as they are.
_OPENED = frozenset({"closed_call", "cond", "jit", "pjit", "scan"})


@final
class Rewriting:
    """The rewriting of a function, and of the functions that it calls."""

    def __init__(self) -> None:
        self._flow = WeightFlow()
        self._known: dict[Any, SavedArrays] = {}

    def of(self, closed: ClosedJaxpr, bits: list[int], held: list[bool]) -> ClosedJaxpr:
        """The function that saves fewer bytes, or the very same function if there is none.

        Args:
            closed: the function.
            bits: the bits of its inputs.
            held: for each input, whether it is in memory anyway.
        """
        if closed.effects:
            return closed
        inputs = closed.jaxpr.invars
        known = dict.fromkeys(closed.jaxpr.constvars, 0) | dict(zip(inputs, bits, strict=True))
        free = {*closed.jaxpr.constvars, *(atom for atom, is_held in zip(inputs, held, strict=True) if is_held)}
        equations = [self._equation(equation, known, free) for equation in closed.jaxpr.eqns]
        jaxpr = closed.jaxpr.replace(eqns=equations)
        regions = RegionMap(jaxpr, known)
        chosen = RegionChoice(regions, free, self._known).made()
        if not chosen and all(new is old for new, old in zip(equations, closed.jaxpr.eqns, strict=True)):
            return closed
        steps = list(_in_order(regions, chosen))

        def rewritten(*inputs: Any) -> list[Any]:
            known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *inputs], strict=True))
            for region, function in steps:
                results = function(*(known[atom] for atom in region.inputs))
                known.update(zip(region.outputs, results, strict=True))
            return [atom.val if isinstance(atom, Literal) else known[atom] for atom in jaxpr.outvars]

        return jax.make_jaxpr(rewritten)(*closed.in_avals)

    def _equation(self, equation: Any, known: dict[Any, int], free: set[Any]) -> Any:
        """The equation with the functions that it calls rewritten; adds the bits of its results to `known`."""
        bits = [0 if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
        results = self._flow.results(equation, bits)
        known.update(zip(equation.outvars, results, strict=True))
        name = equation.primitive.name
        if name not in _OPENED or not any(each & MOVES for each in results):
            return equation
        held = [isinstance(atom, Literal) or atom in free for atom in equation.invars]
        if name == "cond":
            held = held[1:]
        elif name == "scan":
            first, last = carried(equation)
            held[first:last] = [False] * (last - first)
        found = list(calls(equation, bits, results))
        new = tuple(self.of(call.closed, call.bits, held) for call in found)
        if all(function is call.closed for function, call in zip(new, found, strict=True)):
            return equation
        key = found[0].key
        return equation.replace(params=equation.params | {key: new if key == "branches" else new[0]})


def _in_order(regions: RegionMap, chosen: list[Region]) -> Iterator[tuple[Region, Callable[..., list[Any]]]]:
    """The chosen regions, and the equations between them as regions, in an order in which all can be computed."""
    equations = regions.jaxpr.eqns
    place = {number: each.equations[0] for each in chosen for number in each.equations}
    maker = {atom: number for number, equation in enumerate(equations) for atom in equation.outvars}
    graph: dict[int, set[int]] = {}
    for number, equation in enumerate(equations):
        own = place.get(number, number)
        before = {maker[atom] for atom in variables(equation.invars) if atom in maker}
        graph.setdefault(own, set()).update({place.get(each, each) for each in before} - {own})
    by_first = {each.equations[0]: each for each in chosen}
    for region, numbers in groupby(TopologicalSorter(graph).static_order(), by_first.get):
        if region is None:
            plain = regions.region(list(numbers))
            yield plain, jaxpr_as_fun(plain.closed)
        else:
            yield region, jax.checkpoint(jaxpr_as_fun(region.closed))
