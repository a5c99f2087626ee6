"""What each variable of a function depends on: trainable parameters, the sample, something random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr

from frostline.jax._jaxpr.equations import variables
from frostline.jax._jaxpr.flow import DependenceFlow, union
from frostline.jax._jaxpr.purity import is_cheap, random_steps

MOVES = 1  # depends on a trainable parameter
VARIES = 2  # depends on an input, so that it is another one for each sample
RANDOM = 4  # depends on something that is another one in each call
ABOVE = MOVES | RANDOM  # must be computed in each step


def dependence(closed: ClosedJaxpr, bits: Sequence[int]) -> dict[Any, int]:
    """The bits of every variable. All results of an equation have the bits of all of its operands."""
    jaxpr = closed.jaxpr
    found = dict.fromkeys(jaxpr.constvars, 0) | dict(zip(jaxpr.invars, bits, strict=True))
    for equation in jaxpr.eqns:
        operands = [found[atom] for atom in variables(equation.invars)]
        found |= dict.fromkeys(equation.outvars, result_bits(equation, operands))
    return found


def result_bits(equation: Any, operands: Sequence[int]) -> int:
    """The bits of the results of an equation."""
    return union(operands) | (RANDOM if any(random_steps(equation)) else 0)


def is_mixed(equation: Any, operands: list[int]) -> bool:
    """Whether an equation must run in each step, and calls a function with work for a sample that need not."""
    if not result_bits(equation, operands) & ABOVE:
        return False
    has_work_below = False

    def noted(equation: Any, bits: int) -> int:
        nonlocal has_work_below
        result = result_bits(equation, [bits])
        has_work_below |= result == VARIES and not is_cheap(equation)
        return result

    DependenceFlow(noted).results(equation, operands)
    return has_work_below
