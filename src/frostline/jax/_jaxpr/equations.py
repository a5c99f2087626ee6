"""Equations of a jaxpr: their operands, the functions that they call, and functions made of some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def variables(atoms: Iterable[Any]) -> Iterator[Any]:
    """The atoms that are not literals."""
    return (atom for atom in atoms if not isinstance(atom, Literal))


def is_inexact(value: Any) -> bool:
    """Whether a value of this type can have a gradient."""
    return bool(jnp.issubdtype(value.dtype, jnp.inexact))


def carried(equation: Any) -> tuple[int, int]:
    """Where the carry of a ``scan`` begins and ends among its operands: constants, carry, rows."""
    first = equation.params["num_consts"]
    return first, first + equation.params["num_carry"]


def called(equation: Any) -> tuple[str, ClosedJaxpr] | None:
    """The function that an equation calls with its own operands, after the name of the parameter that holds it."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if (found := equation.params.get(key)) is not None:
            closed = ClosedJaxpr(found, ()) if isinstance(found, Jaxpr) else found
            return (key, closed) if len(closed.jaxpr.invars) == len(equation.invars) else None
    return None


def functions_in(equation: Any) -> Iterator[ClosedJaxpr]:
    """All functions among the parameters of an equation: a body, branches, the function behind a rule.

    Example:
        >>> traced = jax.make_jaxpr(lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x))(jnp.ones(2))
        >>> [each.jaxpr.eqns[0].primitive.name for each in functions_in(traced.jaxpr.eqns[-1])]
        ['cos', 'sin']
    """
    for setting in equation.params.values():
        for each in setting if isinstance(setting, tuple | list) else (setting,):
            if isinstance(each, ClosedJaxpr):
                yield each
            elif isinstance(each, Jaxpr):
                yield ClosedJaxpr(each, ())


def nested(equation: Any) -> Iterator[Any]:
    """An equation, followed by all equations of the functions inside it."""
    yield equation
    for closed in functions_in(equation):
        for each in closed.jaxpr.eqns:
            yield from nested(each)


def function_of(jaxpr: Jaxpr, equations: list[Any], inputs: Iterable[Any], outputs: Iterable[Any]) -> ClosedJaxpr:
    """Some equations of a function as a function."""
    effects = frozenset(effect for equation in equations for effect in equation.effects)
    named = jaxpr.debug_info.with_unknown_names()
    cut = jaxpr.replace(
        constvars=[], invars=list(inputs), outvars=list(outputs), eqns=equations, effects=effects, debug_info=named
    )
    return ClosedJaxpr(cut, ())


def part(closed: ClosedJaxpr, inputs: Sequence[Any], outputs: Sequence[Any]) -> ClosedJaxpr:
    """The part of a function that computes some of its variables from others, which it does not compute."""
    jaxpr, given = closed.jaxpr, set(inputs)
    wanted = set(variables(outputs))
    equations = []
    for equation in reversed(jaxpr.eqns):
        if any(atom in wanted and atom not in given for atom in equation.outvars):
            equations.append(equation)
            wanted |= set(variables(equation.invars))
    consts = [(v, const) for v, const in zip(jaxpr.constvars, closed.consts, strict=True) if v in wanted - given]
    cut = function_of(jaxpr, equations[::-1], inputs, outputs).jaxpr
    return ClosedJaxpr(cut.replace(constvars=[v for v, _ in consts]), [const for _, const in consts])
