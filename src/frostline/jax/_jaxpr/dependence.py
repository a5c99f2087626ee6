"""What each variable of a function depends on: trainable parameters, the sample, something random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from jax.extend.core import ClosedJaxpr

from frostline.jax._jaxpr.equations import variables
from frostline.jax._jaxpr.flow import Flow, union
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
    flow = _WorkFlow()
    flow.results(equation, operands)
    return flow.has_work_below


@final
class _WorkFlow(Flow):
    """Finds work that depends on a sample and on nothing above."""

    def __init__(self) -> None:
        self.has_work_below = False

    def constant(self, value: Any) -> int:
        """It depends on nothing."""
        return 0

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """The bits of all operands."""
        result = result_bits(equation, bits)
        if result == VARIES and not is_cheap(equation):
            self.has_work_below = True
        return result

    def decided(self, bits: int) -> int:
        """The bits of the choice."""
        return bits
