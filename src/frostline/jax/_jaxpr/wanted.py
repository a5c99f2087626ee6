"""Of which values of a traced function the gradient matters: those that lead to its outputs, past no stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from frostline.jax._jaxpr.weights import calls


def wanted(jaxpr: Jaxpr, outputs: Sequence[bool]) -> set[Any]:
    """The variables of which it matters.

    Args:
        jaxpr: the function.
        outputs: of each output, whether it matters there.
    """
    found = {
        atom
        for atom, is_wanted in zip(jaxpr.outvars, outputs, strict=True)
        if is_wanted and not isinstance(atom, Literal) and is_inexact(atom)
    }
    for equation in reversed(jaxpr.eqns):
        of_results = [atom in found for atom in equation.outvars]
        if any(of_results):
            of_operands = _of_operands(equation, of_results)
            found |= {
                atom
                for atom, is_wanted in zip(equation.invars, of_operands, strict=True)
                if is_wanted and not isinstance(atom, Literal) and is_inexact(atom)
            }
    return found


def inside(equation: Any, results: Sequence[bool]) -> list[bool]:
    """Of each output of a function that an equation calls, whether it matters; in a loop, in any turn."""
    if equation.primitive.name == "while":
        return [True] * len(results)
    if equation.primitive.name != "scan":
        return list(results)
    first, last = equation.params["num_consts"], equation.params["num_consts"] + equation.params["num_carry"]
    carried, rows = list(results[: last - first]), list(results[last - first :])
    while True:
        again = _of_inputs(equation.params["jaxpr"], [*carried, *rows])[first:last]
        grown = [one or other for one, other in zip(carried, again, strict=True)]
        if grown == carried:
            return [*carried, *rows]
        carried = grown


def is_inexact(atom: Any) -> bool:
    """Whether a value can have a gradient."""
    return bool(jnp.issubdtype(atom.aval.dtype, jnp.inexact))


def _of_operands(equation: Any, results: list[bool]) -> list[bool]:
    count, name = len(equation.invars), equation.primitive.name
    if name == "stop_gradient":
        return [False] * count
    called = [] if name == "while" else list(calls(equation, [0] * count, [0] * len(results)))
    outputs = inside(equation, results)
    known = [_of_inputs(call.closed, outputs) for call in called if len(call.closed.jaxpr.outvars) == len(outputs)]
    if not known:
        return [True] * count
    every = [any(column) for column in zip(*known, strict=True)]
    return [False, *every] if name == "cond" else every


def _of_inputs(closed: ClosedJaxpr, outputs: Sequence[bool]) -> list[bool]:
    found = wanted(closed.jaxpr, outputs)
    return [atom in found for atom in closed.jaxpr.invars]
