"""A traced function in two: what has to be computed in each step, and all that is known without it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from frostline.jax._jaxpr.flow import Flow
from frostline.jax._jaxpr.partial_random import restless
from frostline.jax._jaxpr.purity import is_cheap

MOVES = 1  # depends on a trainable parameter
VARIES = 2  # depends on an input, so that it is another one for each sample
RANDOM = 4  # depends on something that is another one in each call
ABOVE = MOVES | RANDOM  # has to be computed in each step


@final
@dataclass(frozen=True)
class Value:
    """A value on its way through a function that is traced once more.

    Attributes:
        is_: the value.
        bits: what it depends on: `MOVES`, `VARIES`, `RANDOM`.
    """

    is_: Any
    bits: int


def taken_apart(closed: ClosedJaxpr, bits: Sequence[int]) -> ClosedJaxpr:
    """The same function, in which no call holds work that is known beside work that moves.

    What calls a function of JAX (``jit``, ``checkpoint``, ``scan``) is opened where there is something to gain. What
    has a rule of its own (``custom_jvp``, ``custom_vjp``) or decides while it runs (``cond``, ``while``) stays whole.
    ``trace_to_jaxpr_nounits`` would drop the rules of ``custom_jvp``, as it serves linear functions only.

    Args:
        closed: the function.
        bits: what each of its inputs depends on.
    """

    def again(*inputs: Any) -> list[Any]:
        values = [Value(each, bit) for each, bit in zip(inputs, bits, strict=True)]
        return [value.is_ for value in walked(closed, values)]

    return jax.make_jaxpr(again)(*closed.in_avals)


def walked(closed: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
    """The outputs of a function, one equation after another."""
    # They call this function for what is inside of a call.
    from frostline.jax._jaxpr.split_calls import OPENED

    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, (Value(const, 0) for const in closed.consts), strict=True))
    known |= zip(jaxpr.invars, inputs, strict=True)
    for equation in jaxpr.eqns:
        operands = [Value(atom.val, 0) if isinstance(atom, Literal) else known[atom] for atom in equation.invars]
        opened = OPENED.get(equation.primitive.name)
        if opened is not None and _is_worth_it(equation, operands):
            results = opened(equation, operands)
        else:
            results = _whole(jaxpr, equation, operands)
        known |= zip(equation.outvars, results, strict=True)
    return [Value(atom.val, 0) if isinstance(atom, Literal) else known[atom] for atom in jaxpr.outvars]


def _whole(jaxpr: Jaxpr, equation: Any, operands: list[Value]) -> list[Value]:
    """One equation as it is, with its names and settings."""
    given = {
        atom: value.is_ for atom, value in zip(equation.invars, operands, strict=True) if not isinstance(atom, Literal)
    }
    alone = _with(jaxpr, list(given), list(equation.outvars), [equation])
    bits = _with_own(equation, joined(value.bits for value in operands))
    return [Value(each, bits) for each in jaxpr_as_fun(ClosedJaxpr(alone, ()))(*given.values())]


def _is_worth_it(equation: Any, operands: list[Value]) -> bool:
    bits = [value.bits for value in operands]
    if not _with_own(equation, joined(bits)) & ABOVE:
        return False
    found = _Work()
    found.results(equation, bits)
    return found.is_there


@final
class _Work(Flow):
    """Whether a call holds work that varies and is known."""

    def __init__(self) -> None:
        self.is_there = False

    def results(self, equation: Any, bits: list[int]) -> None:
        """Looks into one call."""
        self._results(equation, bits)

    def constant(self, value: Any) -> int:
        """It depends on nothing."""
        return 0

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """All that its operands depend on."""
        result = _with_own(equation, joined(bits))
        if result == VARIES and not is_cheap(equation):
            self.is_there = True
        return result

    def decided(self, bits: int) -> int:
        """All that the choice depends on."""
        return bits


def _with_own(equation: Any, bits: int) -> int:
    """The bits of what an equation computes, for those of all its operands."""
    return bits | RANDOM if any(restless(equation)) else bits


def joined(bits: Iterable[int]) -> int:
    """All bits of several values."""
    result = 0
    for each in bits:
        result |= each
    return result


def colours(closed: ClosedJaxpr, bits: Sequence[int]) -> dict[Any, int]:
    """The bits of every variable; those of an equation that is whole are those of all its operands."""
    jaxpr = closed.jaxpr
    found = dict.fromkeys(jaxpr.constvars, 0) | dict(zip(jaxpr.invars, bits, strict=True))
    for equation in jaxpr.eqns:
        every = joined(found[atom] for atom in variables(equation.invars))
        found |= dict.fromkeys(equation.outvars, _with_own(equation, every))
    return found


def variables(atoms: Iterable[Any]) -> Iterator[Any]:
    """Those that are no literals."""
    return (atom for atom in atoms if not isinstance(atom, Literal))


def part(closed: ClosedJaxpr, inputs: Sequence[Any], outputs: Sequence[Any]) -> ClosedJaxpr:
    """What of a function computes some of its values from others; what is given is not computed.

    Args:
        closed: the function.
        inputs: variables that are given.
        outputs: what is wanted.
    """
    jaxpr, given = closed.jaxpr, set(inputs)
    wanted = set(variables(outputs))
    equations = []
    for equation in reversed(jaxpr.eqns):
        if any(atom in wanted and atom not in given for atom in equation.outvars):
            equations.append(equation)
            wanted |= set(variables(equation.invars))
    consts = [(v, const) for v, const in zip(jaxpr.constvars, closed.consts, strict=True) if v in wanted - given]
    cut = _with(jaxpr, list(inputs), list(outputs), equations[::-1])
    return ClosedJaxpr(cut.replace(constvars=[v for v, _ in consts]), [const for _, const in consts])


def _with(jaxpr: Jaxpr, inputs: list[Any], outputs: list[Any], equations: list[Any]) -> Jaxpr:
    effects = frozenset(effect for equation in equations for effect in equation.effects)
    return jaxpr.replace(constvars=[], invars=inputs, outvars=outputs, eqns=equations, effects=effects)
