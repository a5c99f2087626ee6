"""The stretches of a traced function that are cheap to do again: between two products, no trainable weight in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from frostline.jax._jaxpr.purity import is_cheap
from frostline.jax._jaxpr.weights import MOVES, is_moving_weight


@final
@dataclass(frozen=True)
class Region:
    """Some equations of a function, none of which depends on another one by way of what is outside.

    Attributes:
        equations: their numbers, in order.
        closed: the function that they are.
        inputs: what it reads.
        outputs: what of it is read outside.
    """

    equations: tuple[int, ...]
    closed: ClosedJaxpr
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]


@final
class Plot:
    """A function that is divided into regions.

    Attributes:
        jaxpr: the function.
        bits: what is known of each of its variables.
        readers: the numbers of the equations that read a variable; -1 stands for who called the function.
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
        """Some equations."""
        chosen = [self.jaxpr.eqns[number] for number in equations]
        made = dict.fromkeys(atom for equation in chosen for atom in equation.outvars)
        read = dict.fromkeys(atom for equation in chosen for atom in variables(equation.invars))
        inputs = tuple(atom for atom in read if atom not in made)
        outputs = tuple(atom for atom in made if not self.readers[atom] <= set(equations))
        return Region(tuple(equations), function_of(self.jaxpr, chosen, inputs, outputs), inputs, outputs)

    def regions(self) -> list[list[int]]:
        """The numbers of the equations of each region, which is as large as can be."""
        groups: dict[int, list[int]] = defaultdict(list)
        for number, first in self._grouped().items():
            groups[first].append(number)
        return list(groups.values())

    def _grouped(self) -> dict[int, int]:
        """Of each equation that may be done again, the number of the first one of its region."""
        levels: dict[Any, int] = {}
        makers: dict[Any, int] = {}
        first: dict[int, int] = {}
        for number, equation in enumerate(self.jaxpr.eqns):
            operands = list(variables(equation.invars))
            level = max((levels.get(atom, 0) for atom in operands), default=0)
            if self._may_be_again(equation, operands):
                first[number] = number
                for near in (makers[atom] for atom in operands if atom in makers and levels[atom] == level):
                    _join(first, near, number)
                makers |= dict.fromkeys(equation.outvars, number)
            else:
                # What comes after it is on another level, so that no way leads out of a region and back.
                level += 1
            levels |= dict.fromkeys(equation.outvars, level)
        return {number: _root(first, number) for number in first}

    def _may_be_again(self, equation: Any, operands: list[Any]) -> bool:
        if equation.effects or not is_cheap(equation):
            return False
        found = [self.bits[atom] for atom in operands]
        return any(each & MOVES for each in found) and not any(map(is_moving_weight, found))


def function_of(jaxpr: Jaxpr, equations: list[Any], inputs: Iterable[Any], outputs: Iterable[Any]) -> ClosedJaxpr:
    """Some equations of a function as a function of their own."""
    effects = frozenset(effect for equation in equations for effect in equation.effects)
    named = jaxpr.debug_info.with_unknown_names()
    cut = jaxpr.replace(
        constvars=[], invars=list(inputs), outvars=list(outputs), eqns=equations, effects=effects, debug_info=named
    )
    return ClosedJaxpr(cut, ())


def variables(atoms: Iterable[Any]) -> Iterator[Any]:
    """Those that are no literals."""
    return (atom for atom in atoms if not isinstance(atom, Literal))


def _root(first: dict[int, int], number: int) -> int:
    while first[number] != number:
        number = first[number]
    return number


def _join(first: dict[int, int], near: int, number: int) -> None:
    one, other = sorted((_root(first, near), _root(first, number)))
    first[other] = one
