"""The arrays that a traced function saves for its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from frostline.jax._jaxpr.equations import is_inexact
from frostline.jax._jaxpr.flow import DependenceFlow


class SavedArrays(NamedTuple):
    """The arrays that are saved, each once, without those that depend on no array, such as zeros.

    Attributes:
        inputs: the numbers of the inputs that are saved.
        outputs: the numbers of the outputs that are saved and are not inputs.
        others: the types of the rest.
    """

    inputs: frozenset[int]
    outputs: frozenset[int]
    others: tuple[Any, ...]


def saved(closed: ClosedJaxpr, moves: Sequence[bool]) -> SavedArrays:
    """The arrays that are saved for the gradients of the inputs that move.

    Example:
        >>> x, w = jnp.ones((4, 3)), jnp.ones((3, 2))
        >>> found = saved(jax.make_jaxpr(lambda x, w: jnp.tanh(x @ w))(x, w), [True, False])
        >>> sorted(found.inputs), sorted(found.outputs), found.others
        ([1], [0], (ShapedArray(float32[4,2]),))
    """
    count = len(closed.out_avals)
    passed = forward(closed, moves)
    jaxpr = passed.jaxpr
    made = zip(jaxpr.outvars[count:], depends_on_arrays(passed)[count:], strict=True)
    atoms = dict.fromkeys(atom for atom, is_made in made if is_made)
    inputs = {atom: number for number, atom in enumerate(jaxpr.invars)}
    outputs = {atom: number for number, atom in enumerate(jaxpr.outvars[:count]) if not isinstance(atom, Literal)}
    constants = set(jaxpr.constvars)
    return SavedArrays(
        frozenset(inputs[atom] for atom in atoms if atom in inputs),
        frozenset(outputs[atom] for atom in atoms if atom in outputs and atom not in inputs),
        tuple(atom.aval for atom in atoms if atom not in inputs and atom not in outputs and atom not in constants),
    )


def forward(closed: ClosedJaxpr, moves: Sequence[bool]) -> ClosedJaxpr:
    """The forward pass when gradients are asked for: the outputs, followed by the saved arrays."""

    def outputs_and_saved(*inputs: Any) -> Any:
        return jax.vjp(*of_moving(jaxpr_as_fun(closed), inputs, moves))

    return jax.make_jaxpr(outputs_and_saved)(*closed.in_avals)


def backward(closed: ClosedJaxpr, moves: Sequence[bool]) -> ClosedJaxpr:
    """Forward and backward pass: from gradients of the outputs, the gradients of the inputs, and nothing else."""
    function = jaxpr_as_fun(closed)

    def inexact(*inputs: Any) -> list[Any]:
        return [each for each in function(*inputs) if is_inexact(each)]

    def pulled(inputs: Any, gradients: Any) -> Any:
        return jax.vjp(*of_moving(inexact, inputs, moves))[1](gradients)

    return jax.make_jaxpr(pulled)(closed.in_avals, list(filter(is_inexact, closed.out_avals)))


def of_moving(function: Callable[..., Any], inputs: Sequence[Any], moves: Sequence[bool]) -> list[Any]:
    """A function of those inputs alone whose gradient is asked for, followed by these inputs."""

    def moved(*moving: Any) -> Any:
        given = iter(moving)
        return function(*(next(given) if moved else each for moved, each in zip(moves, inputs, strict=True)))

    return [moved, *(each for moved, each in zip(moves, inputs, strict=True) if moved)]


def depends_on_arrays(closed: ClosedJaxpr) -> list[bool]:
    """For each output, whether it depends on an array. One that does not is made where it is read, and never saved."""
    jaxpr = closed.jaxpr
    named = jaxpr.debug_info.with_unknown_names()
    opened = jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars], debug_info=named)
    return [bool(bits) for bits in DependenceFlow().through(ClosedJaxpr(opened, ()), [1] * len(opened.invars))]


def aliases(jaxpr: Jaxpr) -> dict[Any, Any]:
    """The variables that are other variables under a second name: behind a stop, or passed through a call."""
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
