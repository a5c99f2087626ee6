"""The regions of a function between two products, and which of them save fewer bytes when they are computed again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from frostline.jax._jaxpr.equations import function_of, variables
from frostline.jax._jaxpr.purity import is_cheap
from frostline.jax._jaxpr.saved import SavedArrays, nbytes, saved
from frostline.jax._jaxpr.weights import MOVES, is_weight


@final
@dataclass(frozen=True)
class Region:
    """Some equations of a function, none of which depends on another one through an equation outside.

    Attributes:
        equations: the numbers of the equations, in order.
        closed: the equations as a function.
        inputs: the variables that they read.
        outputs: the variables that are read outside.
    """

    equations: tuple[int, ...]
    closed: ClosedJaxpr
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@final
class RegionMap:
    """A function that is divided into regions.

    Attributes:
        jaxpr: the function.
        bits: the bits of each variable.
        readers: the numbers of the equations that read a variable; -1 for the caller of the function.
    """

    def __init__(self, jaxpr: Jaxpr, bits: dict[Any, int]) -> None:
        self.jaxpr, self.bits = jaxpr, bits
        self.readers: dict[Any, set[int]] = defaultdict(set)
        for number, equation in enumerate(jaxpr.eqns):
            for atom in variables(equation.invars):
                self.readers[atom].add(number)
        for atom in variables(jaxpr.outvars):
            self.readers[atom].add(-1)

    def region(self, equations: Sequence[int]) -> Region:
        """The region of some equations."""
        chosen = [self.jaxpr.eqns[number] for number in equations]
        made = dict.fromkeys(atom for equation in chosen for atom in equation.outvars)
        read = dict.fromkeys(atom for equation in chosen for atom in variables(equation.invars))
        inputs = tuple(atom for atom in read if atom not in made)
        outputs = tuple(atom for atom in made if not self.readers[atom] <= set(equations))
        return Region(tuple(equations), function_of(self.jaxpr, chosen, inputs, outputs), inputs, outputs)

    def largest(self) -> list[list[int]]:
        """The numbers of the equations of each region that may be computed again, as large as it can be."""
        levels: dict[Any, int] = {}
        makers: dict[Any, int] = {}
        first: dict[int, int] = {}

        def root(number: int) -> int:
            while first[number] != number:
                number = first[number]
            return number

        for number, equation in enumerate(self.jaxpr.eqns):
            operands = list(variables(equation.invars))
            level = max((levels.get(atom, 0) for atom in operands), default=0)
            if self._is_repeatable(equation, operands):
                first[number] = number
                for near in (makers[atom] for atom in operands if atom in makers and levels[atom] == level):
                    one, other = sorted((root(near), root(number)))
                    first[other] = one
                makers |= dict.fromkeys(equation.outvars, number)
            else:
                # Equations after it are on another level, so that no path leads out of a region and back.
                level += 1
            levels |= dict.fromkeys(equation.outvars, level)
        groups: dict[int, list[int]] = defaultdict(list)
        for number in first:
            groups[root(number)].append(number)
        return list(groups.values())

    def _is_repeatable(self, equation: Any, operands: list[Any]) -> bool:
        if equation.effects or not is_cheap(equation):
            return False
        found = [self.bits[atom] for atom in operands]
        return any(each & MOVES for each in found) and not any(is_weight(each) and each & MOVES for each in found)


@final
class RegionChoice:
    """The choice of the regions that are computed again: those that save fewer bytes then.

    Attributes:
        regions: the function.
        held: the variables that are in memory anyway: inputs and saved arrays.
        known: the saved arrays of functions, by their text, because layers are alike.
    """

    def __init__(self, regions: RegionMap, held: Iterable[Any], known: dict[Any, SavedArrays]) -> None:
        self.regions, self.held, self.known = regions, set(held), known

    def made(self) -> list[Region]:
        """The regions that are computed again."""
        found = self.regions.largest()
        inside = {number for equations in found for number in equations}
        for number in range(len(self.regions.jaxpr.eqns)):
            if number not in inside:
                self._hold(each := self.regions.region([number]), self._saved(each))
        return [each for each in map(self._without_front, found) if each.equations and self._is_worth_it(each)]

    def _is_worth_it(self, region: Region) -> bool:
        plain, lean = self._saved(region), self._saved(region, again=True)
        # Backward starts at a loss, so all of its region would be there again at the very peak.
        is_loss = all(atom.aval.size == 1 and self.regions.readers[atom] == {-1} for atom in region.outputs)
        is_worth_it = not is_loss and self._new_bytes(region, lean) < self._new_bytes(region, plain)
        self._hold(region, lean if is_worth_it else plain)
        return is_worth_it

    def _without_front(self, equations: list[int]) -> Region:
        """The region without linear equations at its front, where their results take fewer bytes than their inputs."""
        left = list(equations)
        while (number := next((each for each in left if self._is_front(each, left)), None)) is not None:
            left.remove(number)
        return self.regions.region(left)

    def _is_front(self, number: int, equations: list[int]) -> bool:
        region = self.regions.region([number])
        made = {atom for other in equations for atom in self.regions.jaxpr.eqns[other].outvars}
        if any(atom in made for atom in region.inputs):
            return False
        found = self._saved(region)
        moving = {number for number, atom in enumerate(region.inputs) if self.regions.bits[atom] & MOVES}
        if found.outputs or found.others or found.inputs & moving:
            return False  # it is not linear
        others = set(equations) - {number}
        readers = self.regions.readers
        given = [atom for atom in region.inputs if not readers[atom] & others and atom not in self.held]
        return sum(nbytes(atom.aval) for atom in region.outputs) <= sum(nbytes(atom.aval) for atom in given)

    def _saved(self, region: Region, *, again: bool = False) -> SavedArrays:
        moves = tuple(bool(self.regions.bits[atom] & MOVES) for atom in region.inputs)
        if not any(moves) or not region.outputs:
            return SavedArrays(frozenset(), frozenset(), ())
        key = (str(region.closed), moves, again)
        if key not in self.known:
            closed = region.closed
            if again:
                closed = jax.make_jaxpr(jax.checkpoint(jaxpr_as_fun(closed)))(*closed.in_avals)
            self.known[key] = saved(closed, moves)
        return self.known[key]

    def _hold(self, region: Region, found: SavedArrays) -> None:
        self.held |= _variables_of(region, found)

    def _new_bytes(self, region: Region, found: SavedArrays) -> int:
        new = _variables_of(region, found) - self.held
        return sum(nbytes(atom.aval) for atom in new) + sum(map(nbytes, found.others))


def _variables_of(region: Region, found: SavedArrays) -> set[Any]:
    return {region.inputs[number] for number in found.inputs} | {region.outputs[number] for number in found.outputs}
