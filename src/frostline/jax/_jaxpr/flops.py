"""Floating-point operations of an equation, by formula."""

from __future__ import annotations

from math import prod
from typing import Any

from jax.extend.core import ClosedJaxpr, jaxprs_in_params


def flops(equation: Any) -> int:
    """Operations of a matrix product or a convolution; a multiplication and an addition are two. 0 of all else.

    A convolution counts a product for each number that it reads or for each that it writes, whichever is less: where
    one is dilated or padded, zeros are not counted, and the gradients of a convolution cost what it costs.

    Example:
        >>> traced = jax.make_jaxpr(lambda x, w: jax.nn.relu(x @ w))(jnp.ones((4, 3)), jnp.ones((3, 2)))
        >>> [flops(equation) for equation in traced.jaxpr.eqns]
        [48, 0]
    """
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return int(2 * equation.outvars[0].aval.size * prod(shape[axis] for axis in contracted))
    if name == "ragged_dot_general":
        return _of_ragged(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    return 0


def _of_ragged(equation: Any) -> int:
    # Each row meets one of the matrices: as if there were a single one.
    (contracted, _), _ = equation.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    shape = equation.invars[0].aval.shape
    return int(2 * equation.outvars[0].aval.size * prod(shape[axis] for axis in contracted))


def _of_convolution(equation: Any) -> int:
    read, kernel = (atom.aval for atom in equation.invars[:2])
    params, written = equation.params, equation.outvars[0].aval
    features = params["dimension_numbers"].rhs_spec[0]
    one_each = kernel.size // kernel.shape[features]
    groups = params["feature_group_count"] * params["batch_group_count"]
    area = prod(kernel.shape[axis] for axis in params["dimension_numbers"].rhs_spec[2:])
    by_read = read.size * area * kernel.shape[features] // groups
    return int(2 * min(written.size * one_each, by_read))


def flops_of(closed: ClosedJaxpr) -> int:
    """Operations of a whole function: loops as often as they run, the dearest branch, of a ``while`` one turn.

    Example:
        >>> x, w = jnp.ones((5, 4, 3)), jnp.ones((3, 2))
        >>> flops_of(jax.make_jaxpr(lambda x, w: jax.lax.map(lambda row: row @ w, x))(x, w))
        240
    """
    return sum(map(_inside, closed.jaxpr.eqns))


def _inside(equation: Any) -> int:
    inner = [sum(map(_inside, jaxpr.eqns)) for jaxpr in map(_plain, jaxprs_in_params(equation.params))]
    if equation.primitive.name == "cond":
        return max(inner)
    return flops(equation) + times(equation) * sum(inner)


def times(equation: Any) -> int:
    """How often what an equation calls is run: in each turn of a loop, on each device of a mesh."""
    name, params = equation.primitive.name, equation.params
    if name == "shard_map":
        mesh = params["mesh"]
        return prod(mesh.shape[axis] for axis in params.get("newly_manual_axes", mesh.axis_names))
    return int(params["length"]) if name == "scan" else 1


def _plain(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)
