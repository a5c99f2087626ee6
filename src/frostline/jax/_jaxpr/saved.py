"""What a traced function keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from frostline.jax._jaxpr.flow import Dependence


class Saved(NamedTuple):
    """The arrays that are kept, each once; zeros and the like, which are made of nothing, are not.

    Attributes:
        inputs: the numbers of inputs that are kept.
        outputs: the numbers of outputs that are kept and are no inputs.
        others: the types of all else.
    """

    inputs: frozenset[int]
    outputs: frozenset[int]
    others: tuple[Any, ...]


def saved(closed: ClosedJaxpr, moves: Sequence[bool]) -> Saved:
    """What is kept for gradients with respect to some of the inputs.

    Args:
        closed: the function.
        moves: of each input, whether a gradient is asked for.

    Example:
        >>> x, w = jnp.ones((4, 3)), jnp.ones((3, 2))
        >>> found = saved(jax.make_jaxpr(lambda x, w: jnp.tanh(x @ w))(x, w), [True, False])
        >>> sorted(found.inputs), sorted(found.outputs), found.others
        ([1], [0], (ShapedArray(float32[4,2]),))
    """
    count = len(closed.out_avals)
    kept = forward(closed, moves)
    jaxpr = kept.jaxpr
    made = zip(jaxpr.outvars[count:], are_made_of_something(kept)[count:], strict=True)
    atoms = dict.fromkeys(atom for atom, is_made in made if is_made)
    inputs = {atom: number for number, atom in enumerate(jaxpr.invars)}
    outputs = {atom: number for number, atom in enumerate(jaxpr.outvars[:count]) if not isinstance(atom, Literal)}
    held = set(jaxpr.constvars)
    return Saved(
        frozenset(inputs[atom] for atom in atoms if atom in inputs),
        frozenset(outputs[atom] for atom in atoms if atom in outputs and atom not in inputs),
        tuple(atom.aval for atom in atoms if atom not in inputs and atom not in outputs and atom not in held),
    )


def forward(closed: ClosedJaxpr, moves: Sequence[bool]) -> ClosedJaxpr:
    """The forward pass as it is when gradients are asked for: outputs, and then what is kept for them."""
    function = jaxpr_as_fun(closed)

    def kept(*inputs: Any) -> Any:
        def of_moving(*moving: Any) -> list[Any]:
            given = iter(moving)
            return function(*(next(given) if moved else each for moved, each in zip(moves, inputs, strict=True)))

        return jax.vjp(of_moving, *(each for moved, each in zip(moves, inputs, strict=True) if moved))

    return jax.make_jaxpr(kept)(*closed.in_avals)


def are_made_of_something(closed: ClosedJaxpr) -> list[bool]:
    """Of each output, whether it depends on an array. What does not is made where it is read, and is never kept."""
    jaxpr = closed.jaxpr
    named = jaxpr.debug_info.with_unknown_names()
    whole = jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars], debug_info=named)
    return [bool(bits) for bits in Dependence().through(ClosedJaxpr(whole, ()), [1] * len(whole.invars))]


def backward(closed: ClosedJaxpr, moves: Sequence[bool]) -> ClosedJaxpr:
    """Forward and backward pass: the gradients for gradients of the outputs, and nothing that they do not need."""
    function = jaxpr_as_fun(closed)

    def pulled(inputs: Any, gradients: Any) -> Any:
        def of_moving(*moving: Any) -> list[Any]:
            given = iter(moving)
            found = function(*(next(given) if moved else each for moved, each in zip(moves, inputs, strict=True)))
            return [each for each in found if _is_inexact(each)]

        moving = (each for moved, each in zip(moves, inputs, strict=True) if moved)
        return jax.vjp(of_moving, *moving)[1](gradients)

    shapes = [aval for aval in closed.out_avals if _is_inexact(aval)]
    return jax.make_jaxpr(pulled)(closed.in_avals, shapes)


def aliases(jaxpr: Jaxpr) -> dict[Any, Any]:
    """The variables that are other ones under another name: behind a stop, and handed through by a call."""
    found: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "stop_gradient":
            pairs = [(equation.outvars[0], equation.invars[0])]
        elif equation.primitive.name in {"jit", "pjit"}:
            inner = equation.params["jaxpr"].jaxpr
            behind = aliases(inner)
            given = dict(zip(inner.invars, equation.invars, strict=True))
            returned = [atom if isinstance(atom, Literal) else behind.get(atom, atom) for atom in inner.outvars]
            of_results = zip(equation.outvars, returned, strict=True)
            pairs = [(own, given[atom]) for own, atom in of_results if not isinstance(atom, Literal) and atom in given]
        else:
            continue
        found |= {own: other if isinstance(other, Literal) else found.get(other, other) for own, other in pairs}
    return found


def nbytes(aval: Any) -> int:
    """The bytes of an array of this type."""
    return int(aval.size) * int(aval.dtype.itemsize)


def _is_inexact(value: Any) -> bool:
    return bool(jnp.issubdtype(value.dtype, jnp.inexact))
