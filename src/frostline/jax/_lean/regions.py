"""Which regions of a function are worth doing again: those of which fewer bytes are kept then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import jax
from jax.extend.core import jaxpr_as_fun

from frostline.jax._jaxpr.saved import Saved, nbytes, saved
from frostline.jax._jaxpr.weights import MOVES
from frostline.jax._lean.lean_regions import Plot, Region


@final
class Choice:
    """What is kept of a function, and which of its regions are done again.

    Attributes:
        plot: the function.
        held: the variables that are there anyway, or are kept.
        known: what is kept of functions that were looked at, by their text: layers are alike.
    """

    def __init__(self, plot: Plot, held: Iterable[Any], known: dict[Any, Saved]) -> None:
        self.plot, self.held, self.known = plot, set(held), known

    def made(self) -> list[Region]:
        """The regions that are done again."""
        found = self.plot.regions()
        inside = {number for equations in found for number in equations}
        for number in range(len(self.plot.jaxpr.eqns)):
            if number not in inside:
                self._keep(each := self.plot.region([number]), self._saved(each))
        return [each for each in map(self._without_front, found) if each.equations and self._is_worth_it(each)]

    def _is_worth_it(self, region: Region) -> bool:
        plain, lean = self._saved(region), self._saved(region, again=True)
        is_worth_it = not self._is_loss(region) and self._bytes(region, lean) < self._bytes(region, plain)
        self._keep(region, lean if is_worth_it else plain)
        return is_worth_it

    def _is_loss(self, region: Region) -> bool:
        # Backward starts there, so all of it would be there again at the very peak.
        return all(atom.aval.size == 1 and self.plot.readers[atom] == {-1} for atom in region.outputs)

    def _without_front(self, equations: list[int]) -> Region:
        """The region without what is linear at its front, where less has to be kept of what comes out of that."""
        left = list(equations)
        while (number := next((each for each in left if self._is_front(each, left)), None)) is not None:
            left.remove(number)
        return self.plot.region(left)

    def _is_front(self, number: int, equations: list[int]) -> bool:
        region = self.plot.region([number])
        made = {atom for other in equations for atom in self.plot.jaxpr.eqns[other].outvars}
        if any(atom in made for atom in region.inputs) or not self._is_linear(region):
            return False
        others = set(equations) - {number}
        given = [atom for atom in region.inputs if not self.plot.readers[atom] & others and atom not in self.held]
        return sum(nbytes(atom.aval) for atom in region.outputs) <= sum(nbytes(atom.aval) for atom in given)

    def _is_linear(self, region: Region) -> bool:
        kept = self._saved(region)
        moving = [number for number, atom in enumerate(region.inputs) if self.plot.bits[atom] & MOVES]
        return not kept.outputs and not kept.others and not kept.inputs & set(moving)

    def _saved(self, region: Region, *, again: bool = False) -> Saved:
        moves = tuple(bool(self.plot.bits[atom] & MOVES) for atom in region.inputs)
        if not any(moves) or not region.outputs:
            return Saved(frozenset(), frozenset(), ())
        key = (str(region.closed), moves, again)
        if key not in self.known:
            closed = region.closed
            if again:
                closed = jax.make_jaxpr(jax.checkpoint(jaxpr_as_fun(closed)))(*closed.in_avals)
            self.known[key] = saved(closed, moves)
        return self.known[key]

    def _keep(self, region: Region, kept: Saved) -> None:
        self.held.update(region.inputs[number] for number in kept.inputs)
        self.held.update(region.outputs[number] for number in kept.outputs)

    def _bytes(self, region: Region, kept: Saved) -> int:
        atoms = {region.inputs[number] for number in kept.inputs} | {region.outputs[number] for number in kept.outputs}
        return sum(nbytes(atom.aval) for atom in atoms - self.held) + sum(map(nbytes, kept.others))
