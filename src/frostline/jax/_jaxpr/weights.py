"""Which values of a traced function are weights, which are made of data, and which need a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, final

from jax.extend.core import ClosedJaxpr, Jaxpr

from frostline.jax._jaxpr.equations import called, carried, is_inexact, variables
from frostline.jax._jaxpr.flops import times
from frostline.jax._jaxpr.flow import Flow, union

MOVES = 1  # a gradient is asked for
FLOWS = 2  # made of data
_NUMBERED = 2  # each bit from here on is a weight that a value is made of, or that is below it

PRODUCTS = frozenset({"conv_general_dilated", "dot_general", "ragged_dot_general"})
# Their results count as data even where all operands are weights.
_TOUCHED = PRODUCTS | {"gather"}


def weight(number: int) -> int:
    """The bits of the weight with this number."""
    return 1 << (number + _NUMBERED)


def is_weight(bits: int) -> bool:
    """Whether a value is a weight, or made of weights alone."""
    return bits >> _NUMBERED > 0 and not bits & FLOWS


def numbers(bits: int) -> list[int]:
    """The numbers of the weights in a value's bits."""
    weights = bits >> _NUMBERED
    return [number for number in range(weights.bit_length()) if weights >> number & 1]


@final
class WeightFlow(Flow):
    """Follows weights: one that is cast, reshaped, masked or joined with others stays a weight."""

    def results(self, equation: Any, bits: list[int]) -> list[int]:
        """The bits of the results of an equation; only floating values move."""
        found = super().results(equation, bits)
        return [
            each if is_inexact(atom.aval) else each & ~MOVES for atom, each in zip(equation.outvars, found, strict=True)
        ]

    def constant(self, value: Any) -> int:
        """No bits: a constant is not a weight, and does not make a weight data."""
        return 0

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """The bits of all operands; a product is made of data."""
        joined, name = union(bits), equation.primitive.name
        if name == "stop_gradient" or not any(is_inexact(atom.aval) for atom in equation.outvars):
            # A weight stays one; of data, the weights below it do not matter any more.
            return FLOWS if joined & FLOWS else joined & ~MOVES
        touches = name in _TOUCHED and not all(map(is_weight, bits))
        return joined | FLOWS if touches else joined

    def decided(self, bits: int) -> int:
        """No bits: a choice is not a number."""
        return 0


class InnerCall(NamedTuple):
    """A function that an equation runs.

    Attributes:
        closed: the function.
        bits: the bits of its inputs.
        times: how often it runs.
        key: the parameter of the equation that holds it.
    """

    closed: ClosedJaxpr
    bits: list[int]
    times: int
    key: str


def calls(equation: Any, bits: list[int], results: list[int]) -> Iterator[InnerCall]:
    """The functions that an equation runs, from the bits of its operands and results; of a ``while`` one turn."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        first, last = carried(equation)
        inside = [*bits[:first], *results[: last - first], *bits[last:]]
        yield InnerCall(params["jaxpr"], inside, times(equation), "jaxpr")
    elif name == "while":
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        yield InnerCall(params["cond_jaxpr"], [*bits[:first], *results], 1, "cond_jaxpr")
        yield InnerCall(params["body_jaxpr"], [*bits[first:last], *results], 1, "body_jaxpr")
    elif name == "cond":
        for branch in params["branches"]:
            yield InnerCall(branch, bits[1:], 1, "branches")
    elif (call := called(equation)) is not None:
        yield InnerCall(call[1], bits, times(equation), call[0])


def with_gradient(jaxpr: Jaxpr, outputs: Sequence[bool]) -> set[Any]:
    """The variables whose gradient matters: those that lead to an output whose gradient does, past no stop."""
    found = _inexact(jaxpr.outvars, outputs)
    for equation in reversed(jaxpr.eqns):
        of_results = [atom in found for atom in equation.outvars]
        if any(of_results):
            found |= _inexact(equation.invars, _of_operands(equation, of_results))
    return found


def inner_outputs(equation: Any, results: Sequence[bool]) -> list[bool]:
    """For each output of the function that an equation calls, whether its gradient matters, in any turn of a loop."""
    if equation.primitive.name == "while":
        return [True] * len(results)
    if equation.primitive.name != "scan":
        return list(results)
    first, last = carried(equation)
    carry, rows = list(results[: last - first]), list(results[last - first :])
    while True:
        again = _of_inputs(equation.params["jaxpr"], [*carry, *rows])[first:last]
        grown = [one or other for one, other in zip(carry, again, strict=True)]
        if grown == carry:
            return [*carry, *rows]
        carry = grown


def _inexact(atoms: Iterable[Any], chosen: Iterable[bool]) -> set[Any]:
    those = (atom for atom, is_chosen in zip(atoms, chosen, strict=True) if is_chosen)
    return {atom for atom in variables(those) if is_inexact(atom.aval)}


def _of_operands(equation: Any, results: list[bool]) -> list[bool]:
    count, name = len(equation.invars), equation.primitive.name
    if name == "stop_gradient":
        return [False] * count
    inner = [] if name == "while" else list(calls(equation, [0] * count, [0] * len(results)))
    outputs = inner_outputs(equation, results)
    known = [_of_inputs(call.closed, outputs) for call in inner if len(call.closed.jaxpr.outvars) == len(outputs)]
    if not known:
        return [True] * count
    every = [any(column) for column in zip(*known, strict=True)]
    return [False, *every] if name == "cond" else every


def _of_inputs(closed: ClosedJaxpr, outputs: Sequence[bool]) -> list[bool]:
    found = with_gradient(closed.jaxpr, outputs)
    return [atom in found for atom in closed.jaxpr.invars]
