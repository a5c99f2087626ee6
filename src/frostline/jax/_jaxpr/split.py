"""The division of a traced function: calls that hold work of every step beside known work become two calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from frostline.jax._jaxpr.dependence import ABOVE, dependence, is_mixed, result_bits
from frostline.jax._jaxpr.equations import carried, function_of, part, variables


@final
@dataclass(frozen=True)
class TracedValue:
    """A value of a function that is traced once more, with what it depends on: `MOVES`, `VARIES`, `RANDOM`."""

    value: Any
    bits: int


def divided(closed: ClosedJaxpr, bits: Sequence[int]) -> ClosedJaxpr:
    """The same function, in which no call holds work of every step beside work that is known without it.

    Calls of ``jit``, ``checkpoint`` and ``scan`` are opened where they hold both. A function with a rule of its own
    (``custom_jvp``, ``custom_vjp``), a ``cond`` and a ``while`` stay whole. JAX's own ``trace_to_jaxpr_nounits`` drops
    the rules of ``custom_jvp``, because it serves linear functions only.
    """

    def again(*inputs: Any) -> list[Any]:
        return [each.value for each in _outputs(closed, list(map(TracedValue, inputs, bits)))]

    return jax.make_jaxpr(again)(*closed.in_avals)


def _outputs(closed: ClosedJaxpr, inputs: Sequence[TracedValue]) -> list[TracedValue]:
    """Runs a function, one equation after another."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, (TracedValue(const, 0) for const in closed.consts), strict=True))
    known |= zip(jaxpr.invars, inputs, strict=True)

    def read(atom: Any) -> TracedValue:
        return TracedValue(atom.val, 0) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        operands = list(map(read, equation.invars))
        bits = [each.bits for each in operands]
        opened = _OPENED.get(equation.primitive.name)
        if opened is not None and is_mixed(equation, bits):
            results = opened(equation, operands)
        else:
            # With its names and settings.
            given = dict.fromkeys(variables(equation.invars))
            alone = function_of(jaxpr, [equation], given, equation.outvars)
            found = jaxpr_as_fun(alone)(*(known[atom].value for atom in given))
            results = [TracedValue(each, result_bits(equation, bits)) for each in found]
        known |= zip(equation.outvars, results, strict=True)
    return list(map(read, jaxpr.outvars))


@final
@dataclass(frozen=True)
class _TwoParts:
    """A function in two parts.

    Attributes:
        known: from the known inputs, the known outputs and the crossing values.
        moving: from the crossing values and the inputs that it takes, the outputs of every step.
        takes: for each input, whether `moving` takes it.
        bits: the bits of each output.
    """

    known: ClosedJaxpr
    moving: ClosedJaxpr
    takes: list[bool]
    bits: list[int]

    def merged(self, known: Sequence[Any], moving: Sequence[Any]) -> list[TracedValue]:
        """The outputs of the function, from those of the parts."""
        parts = iter(known), iter(moving)
        return [TracedValue(next(parts[bool(bit & ABOVE)]), bit) for bit in self.bits]


def _two_parts(closed: ClosedJaxpr, bits: Sequence[int], carry: slice = slice(0, 0)) -> _TwoParts:
    """Divides a function. The carry of a loop has the same bits before and after a turn."""
    opened = divided(closed, bits)
    depends, jaxpr = dependence(opened, bits), opened.jaxpr
    inputs, outputs = jaxpr.invars, jaxpr.outvars
    carries = inputs[carry]
    least = [depends[atom] for atom in carries] + [0] * (len(outputs) - len(carries))
    of_outputs = [bit | _bits(depends, atom) for bit, atom in zip(least, outputs, strict=True)]
    moving_outputs = [atom for atom, bit in zip(outputs, of_outputs, strict=True) if bit & ABOVE]
    known_outputs = [atom for atom, bit in zip(outputs, of_outputs, strict=True) if not bit & ABOVE]
    moving = (each for each in jaxpr.eqns if any(depends[atom] & ABOVE for atom in each.outvars))
    atoms = [*(atom for equation in moving for atom in variables(equation.invars)), *variables(moving_outputs)]
    read = dict.fromkeys(atom for atom in atoms if not depends[atom] & ABOVE and atom not in jaxpr.constvars)
    takes = [bool(depends[atom] & ABOVE) or (atom in read and atom not in carries) for atom in inputs]
    taken = [atom for atom, is_taken in zip(inputs, takes, strict=True) if is_taken]
    crossing = [atom for atom in read if atom not in taken]
    known_inputs = [atom for atom in inputs if not depends[atom] & ABOVE]
    return _TwoParts(
        part(opened, known_inputs, [*known_outputs, *crossing]),
        part(opened, [*crossing, *taken], moving_outputs),
        takes,
        of_outputs,
    )


def _bits(depends: dict[Any, int], atom: Any) -> int:
    return 0 if isinstance(atom, Literal) else depends[atom]


def _checkpoint(equation: Any, operands: list[TracedValue]) -> list[TracedValue]:
    params = equation.params
    two = _two_parts(ClosedJaxpr(params["jaxpr"], ()), [each.bits for each in operands])
    found = jaxpr_as_fun(two.known)(*_known(operands))
    known, crossing = _cut(found, len(two.bits) - len(two.moving.out_avals))
    again = jax.checkpoint(jaxpr_as_fun(two.moving), prevent_cse=params["prevent_cse"], policy=params["policy"])
    return two.merged(known, again(*crossing, *_taken(operands, two.takes)))


def _scan(equation: Any, operands: list[TracedValue]) -> list[TracedValue]:
    params, body = equation.params, equation.params["jaxpr"]
    first, last = carried(equation)
    carry = slice(first, last)
    bits = _with_final_carry(body, [each.bits for each in operands], carry)
    two = _two_parts(body, bits, carry)
    settings = {"length": params["length"], "reverse": params["reverse"], "unroll": params["unroll"]}
    values = [TracedValue(each.value, bit) for each, bit in zip(operands, bits, strict=True)]
    constants, starts, rows = values[:first], values[carry], values[last:]
    takes = two.takes[:first], two.takes[carry], two.takes[last:]

    def known_turn(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        return _cut(jaxpr_as_fun(two.known)(*_known(constants), *carry, *row), len(carry))

    def moving_turn(carry: list[Any], row: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
        crossing, own = row
        return _cut(jaxpr_as_fun(two.moving)(*crossing, *_taken(constants, takes[0]), *carry, *own), len(carry))

    known, stacked = jax.lax.scan(known_turn, _known(starts), _known(rows), **settings)
    known_rows, crossing = _cut(stacked, sum(not bit & ABOVE for bit in two.bits[last - first :]))
    moving_rows = crossing, _taken(rows, takes[2])
    moved, moved_rows = jax.lax.scan(moving_turn, _taken(starts, takes[1]), moving_rows, **settings)
    return two.merged([*known, *known_rows], [*moved, *moved_rows])


def _with_final_carry(body: ClosedJaxpr, bits: list[int], carry: slice) -> list[int]:
    """The bits of a loop's operands, once those of its carry grow no more."""
    while True:
        opened = divided(body, bits)
        depends = dependence(opened, bits)
        grown = [bit | _bits(depends, atom) for bit, atom in zip(bits[carry], opened.jaxpr.outvars, strict=False)]
        if grown == bits[carry]:
            return bits
        bits = [*bits[: carry.start], *grown, *bits[carry.stop :]]


def _known(values: Sequence[TracedValue]) -> list[Any]:
    return [each.value for each in values if not each.bits & ABOVE]


def _taken(values: Sequence[TracedValue], takes: Sequence[bool]) -> list[Any]:
    return [each.value for each, is_taken in zip(values, takes, strict=True) if is_taken]


def _cut(values: Sequence[Any], at: int) -> tuple[list[Any], list[Any]]:
    return list(values[:at]), list(values[at:])


# By the name of the primitive.
_OPENED: dict[str, Callable[[Any, list[TracedValue]], list[TracedValue]]] = {
    **dict.fromkeys(
        ("jit", "pjit", "closed_call"), lambda equation, values: _outputs(equation.params["jaxpr"], values)
    ),
    **dict.fromkeys(("checkpoint", "remat2"), _checkpoint),
    "scan": _scan,
}
