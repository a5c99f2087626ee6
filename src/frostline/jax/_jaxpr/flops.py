"""Floating-point operations of an equation, by formula."""

from __future__ import annotations

from math import prod
from typing import Any

from jax.extend.core import ClosedJaxpr, jaxprs_in_params


def flops(equation: Any) -> int:
    """Operations of a matrix product or a convolution, where a multiplication and an addition are two; otherwise 0.

    A convolution counts one product for each number that it reads or for each that it writes, whichever is less:
    zeros of a dilated or padded one are not counted, and its gradients cost as much as the convolution itself.

    Example:
        >>> traced = jax.make_jaxpr(lambda x, w: jax.nn.relu(x @ w))(jnp.ones((4, 3)), jnp.ones((3, 2)))
        >>> [flops(equation) for equation in traced.jaxpr.eqns]
        [48, 0]
    """
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
    elif name == "ragged_dot_general":
        # Each row meets one of the matrices, as if there were a single one.
        (contracted, _), _ = params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    elif name == "conv_general_dilated":
        read, kernel = (atom.aval for atom in equation.invars[:2])
        features, _, *spatial = params["dimension_numbers"].rhs_spec
        groups = params["feature_group_count"] * params["batch_group_count"]
        by_written = equation.outvars[0].aval.size * (kernel.size // kernel.shape[features])
        area = prod(kernel.shape[axis] for axis in spatial)
        return int(2 * min(by_written, read.size * area * kernel.shape[features] // groups))
    else:
        return 0
    shape = equation.invars[0].aval.shape
    return int(2 * equation.outvars[0].aval.size * prod(shape[axis] for axis in contracted))


def flops_of(closed: ClosedJaxpr) -> int:
    """Operations of a function: every turn of a ``scan``, the dearest branch of a ``cond``, one turn of a ``while``.

    Example:
        >>> x, w = jnp.ones((5, 4, 3)), jnp.ones((3, 2))
        >>> flops_of(jax.make_jaxpr(lambda x, w: jax.lax.map(lambda row: row @ w, x))(x, w))
        240
    """
    return sum(map(_inside, closed.jaxpr.eqns))


def _inside(equation: Any) -> int:
    called = (getattr(each, "jaxpr", each) for each in jaxprs_in_params(equation.params))
    inner = [sum(map(_inside, jaxpr.eqns)) for jaxpr in called]
    if equation.primitive.name == "cond":
        return max(inner)
    return flops(equation) + times(equation) * sum(inner)


def times(equation: Any) -> int:
    """How often an equation runs the function that it calls: once a turn of a loop, once a device of a mesh."""
    name, params = equation.primitive.name, equation.params
    if name == "shard_map":
        mesh = params["mesh"]
        return prod(mesh.shape[axis] for axis in params.get("newly_manual_axes", mesh.axis_names))
    return int(params["length"]) if name == "scan" else 1
