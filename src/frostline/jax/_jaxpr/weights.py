"""Which values of a traced function are weights, which flow through them, and which need a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from frostline.jax._jaxpr.flops import times
from frostline.jax._jaxpr.flow import Flow

MOVES = 1  # a gradient is asked for
FLOWS = 2  # made of data, or by weights
_NUMBERED = 2  # the bits from here on are a weight each: those that a value is made of, or that are above it

PRODUCTS = frozenset({"conv_general_dilated", "dot_general", "ragged_dot_general"})
# What they return flows, also where all that they read is weights.
_TOUCHED = PRODUCTS | {"gather"}


def weight(number: int) -> int:
    """The bits of the weight of this number."""
    return 1 << (number + _NUMBERED)


def is_weight(bits: int) -> bool:
    """Whether a value is a weight, or made of weights alone."""
    return bits >> _NUMBERED > 0 and not bits & FLOWS


def is_moving_weight(bits: int) -> bool:
    """Whether a value is a weight of which a gradient is asked for."""
    return is_weight(bits) and bool(bits & MOVES)


def numbers(bits: int) -> list[int]:
    """The numbers of the weights that a value is made of, or that are above it."""
    weights = bits >> _NUMBERED
    return [number for number in range(weights.bit_length()) if weights >> number & 1]


@final
class Weights(Flow):
    """What is a weight stays one while it is cast, reshaped, masked, or joined with others; else it flows."""

    def results(self, equation: Any, bits: list[int]) -> list[int]:
        """The bits of what an equation returns."""
        return [
            found if _is_inexact(atom) else found & ~MOVES
            for atom, found in zip(equation.outvars, self._results(equation, bits), strict=True)
        ]

    def constant(self, value: Any) -> int:
        """It is no weight, and what is made of it and of weights may still be one."""
        return 0

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """All that its operands are; what flows, through whatever weights, flows."""
        joined, name = 0, equation.primitive.name
        for each in bits:
            joined |= each
        if name == "stop_gradient" or not any(map(_is_inexact, equation.outvars)):
            # What a weight is it stays; of what flows nothing above matters any more.
            return FLOWS if joined & FLOWS else joined & ~MOVES
        touches = name in _TOUCHED and not all(map(is_weight, bits))
        return joined | FLOWS if touches else joined

    def decided(self, bits: int) -> int:
        """Nothing: a choice is no number."""
        return 0


class Call(NamedTuple):
    """A function that an equation runs.

    Attributes:
        closed: the function.
        bits: those of its inputs.
        times: how often it runs.
        key: the name of the parameter of the equation that holds it.
    """

    closed: ClosedJaxpr
    bits: list[int]
    times: int
    key: str


def calls(equation: Any, bits: list[int], results: list[int]) -> Iterator[Call]:
    """The functions that an equation runs; of a ``while`` one turn.

    Args:
        equation: the equation.
        bits: those of its operands.
        results: those of what it returns.
    """
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        inside = [*bits[:first], *results[: last - first], *bits[last:]]
        yield Call(params["jaxpr"], inside, times(equation), "jaxpr")
    elif name == "while":
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        yield Call(params["cond_jaxpr"], [*bits[:first], *results], 1, "cond_jaxpr")
        yield Call(params["body_jaxpr"], [*bits[first:last], *results], 1, "body_jaxpr")
    elif name == "cond":
        for branch in params["branches"]:
            yield Call(branch, bits[1:], 1, "branches")
    else:
        yield from _called(equation, bits)


def _called(equation: Any, bits: list[int]) -> Iterator[Call]:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if (found := equation.params.get(key)) is not None:
            closed = ClosedJaxpr(found, ()) if isinstance(found, Jaxpr) else found
            if len(closed.jaxpr.invars) == len(bits):
                yield Call(closed, bits, times(equation), key)
            return


def _is_inexact(atom: Any) -> bool:
    return bool(jnp.issubdtype(atom.aval.dtype, jnp.inexact))
