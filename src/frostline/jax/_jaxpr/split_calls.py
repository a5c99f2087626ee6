"""How a call is opened that holds work that is known beside work that moves: one half is done, the other called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from frostline.jax._jaxpr.split import ABOVE, Value, colours, joined, part, taken_apart, variables, walked


@final
@dataclass(frozen=True)
class _Halves:
    """A function in two.

    Attributes:
        known: from the inputs that are known, the outputs that are known and what crosses.
        moving: from what crosses and the inputs that it takes, the outputs that move.
        takes: of each input, whether `moving` takes it.
        bits: of each output.
    """

    known: ClosedJaxpr
    moving: ClosedJaxpr
    takes: list[bool]
    bits: list[int]


def _halves(closed: ClosedJaxpr, bits: Sequence[int], carried: range = range(0)) -> _Halves:
    """A function in two; what a loop carries from one step to the next has the same bits before and after."""
    apart = taken_apart(closed, bits)
    colour, jaxpr = colours(apart, bits), apart.jaxpr
    inputs, outputs = jaxpr.invars, jaxpr.outvars
    carries = inputs[carried.start : carried.stop]
    least = [colour[atom] for atom in carries] + [0] * (len(outputs) - len(carries))
    of_outputs = [joined(pair) for pair in zip(least, (_bits(colour, atom) for atom in outputs), strict=True)]
    moving_outputs = [atom for atom, bit in zip(outputs, of_outputs, strict=True) if bit & ABOVE]
    read = _read_by_moving(apart, colour, moving_outputs)
    takes = [bool(colour[atom] & ABOVE) or (atom in read and atom not in carries) for atom in inputs]
    taken = [atom for atom, is_taken in zip(inputs, takes, strict=True) if is_taken]
    crossing = [atom for atom in read if atom not in taken]
    known_outputs = [atom for atom, bit in zip(outputs, of_outputs, strict=True) if not bit & ABOVE]
    known_inputs = [atom for atom in inputs if not colour[atom] & ABOVE]
    return _Halves(
        part(apart, known_inputs, [*known_outputs, *crossing]),
        part(apart, [*crossing, *taken], moving_outputs),
        takes,
        of_outputs,
    )


def _read_by_moving(apart: ClosedJaxpr, colour: dict[Any, int], outputs: list[Any]) -> dict[Any, None]:
    """What the half that moves reads of the other one."""
    moving = (each for each in apart.jaxpr.eqns if any(colour[atom] & ABOVE for atom in each.outvars))
    atoms = [*(atom for equation in moving for atom in variables(equation.invars)), *variables(outputs)]
    return dict.fromkeys(atom for atom in atoms if not colour[atom] & ABOVE and atom not in apart.jaxpr.constvars)


def _bits(colour: dict[Any, int], atom: Any) -> int:
    return 0 if isinstance(atom, Literal) else colour[atom]


def _jit(equation: Any, operands: list[Value]) -> list[Value]:
    return walked(equation.params["jaxpr"], operands)


def _checkpoint(equation: Any, operands: list[Value]) -> list[Value]:
    params = equation.params
    halves = _halves(ClosedJaxpr(params["jaxpr"], ()), [value.bits for value in operands])
    found = jaxpr_as_fun(halves.known)(*_known(operands))
    known, crossing = _cut(found, len(halves.bits) - len(halves.moving.out_avals))
    again = jax.checkpoint(jaxpr_as_fun(halves.moving), prevent_cse=params["prevent_cse"], policy=params["policy"])
    return _merged(halves.bits, known, again(*crossing, *_taken(operands, halves.takes)))


def _scan(equation: Any, operands: list[Value]) -> list[Value]:
    params, body = equation.params, equation.params["jaxpr"]
    carried = range(params["num_consts"], params["num_consts"] + params["num_carry"])
    halves = _halves(body, bits := _settled(body, [value.bits for value in operands], carried), carried)
    values = [Value(value.is_, bit) for value, bit in zip(operands, bits, strict=True)]
    settings = {"length": params["length"], "reverse": params["reverse"], "unroll": params["unroll"]}
    constants, starts, rows = _grouped(values, carried)
    taken = _grouped(halves.takes, carried)

    def known_step(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        return _cut(jaxpr_as_fun(halves.known)(*_known(constants), *carry, *row), len(carry))

    def moving_step(carry: list[Any], row: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
        crossing, own = row
        found = jaxpr_as_fun(halves.moving)(*crossing, *_taken(constants, taken[0]), *carry, *own)
        return _cut(found, len(carry))

    known, stacked = jax.lax.scan(known_step, _known(starts), _known(rows), **settings)
    known_rows, crossing = _cut(stacked, sum(not bit & ABOVE for bit in halves.bits[len(carried) :]))
    moved, moved_rows = jax.lax.scan(
        moving_step, _taken(starts, taken[1]), (crossing, _taken(rows, taken[2])), **settings
    )
    return _merged(halves.bits, [*known, *known_rows], [*moved, *moved_rows])


def _settled(body: ClosedJaxpr, bits: list[int], carried: range) -> list[int]:
    """The bits of a loop's operands, when those of what it carries grow no more."""
    while True:
        before = bits[carried.start : carried.stop]
        apart = taken_apart(body, bits)
        colour = colours(apart, bits)
        results = (_bits(colour, atom) for atom in apart.jaxpr.outvars[: len(carried)])
        grown = [joined(pair) for pair in zip(before, results, strict=True)]
        if grown == before:
            return bits
        bits = [*bits[: carried.start], *grown, *bits[carried.stop :]]


def _grouped(each: Sequence[Any], carried: range) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    return each[: carried.start], each[carried.start : carried.stop], each[carried.stop :]


def _known(values: Sequence[Value]) -> list[Any]:
    return [value.is_ for value in values if not value.bits & ABOVE]


def _taken(values: Sequence[Value], takes: Sequence[bool]) -> list[Any]:
    return [value.is_ for value, is_taken in zip(values, takes, strict=True) if is_taken]


def _cut(values: Sequence[Any], at: int) -> tuple[list[Any], list[Any]]:
    return list(values[:at]), list(values[at:])


def _merged(bits: Sequence[int], known: Sequence[Any], moving: Sequence[Any]) -> list[Value]:
    sides = iter(known), iter(moving)
    return [Value(next(sides[bool(bit & ABOVE)]), bit) for bit in bits]


# By the name of the primitive.
OPENED: dict[str, Callable[[Any, list[Value]], list[Value]]] = {
    "jit": _jit,
    "pjit": _jit,
    "closed_call": _jit,
    "remat2": _checkpoint,
    "checkpoint": _checkpoint,
    "scan": _scan,
}
