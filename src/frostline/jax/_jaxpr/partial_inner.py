"""The functions that an equation calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def closed_in(equation: Any) -> Iterator[ClosedJaxpr]:
    """Those that an equation keeps among its settings: a body, branches, the function behind a rule.

    Example:
        >>> traced = jax.make_jaxpr(lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x))(jnp.ones(2))
        >>> [[each.jaxpr.eqns[0].primitive.name for each in closed_in(equation)] for equation in traced.jaxpr.eqns[-1:]]
        [['cos', 'sin']]
    """
    for setting in equation.params.values():
        for each in setting if isinstance(setting, tuple | list) else (setting,):
            if isinstance(each, ClosedJaxpr):
                yield each
            elif isinstance(each, Jaxpr):
                yield ClosedJaxpr(each, ())


def steps_in(equation: Any) -> list[Any]:
    """The equations of all of them."""
    return [each for closed in closed_in(equation) for each in closed.jaxpr.eqns]
