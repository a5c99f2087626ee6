"""What costs next to nothing beside a matrix product: a pass over what it reads."""

from __future__ import annotations

from typing import Any

from frostline.jax._jaxpr.partial_inner import steps_in

_SUMS = {"abs", "add", "add_any", "clamp", "div", "max", "min", "mul", "neg", "rem", "sign", "sub"}
_POWERS = {"cbrt", "exp", "exp2", "expm1", "integer_pow", "log", "log1p", "logistic", "pow", "rsqrt", "sqrt", "square"}
_ANGLES = {"acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "sin", "sinh", "tan", "tanh"}
_ERRORS = {"erf", "erf_inv", "erfc"}
_CHOICES = {"and", "eq", "ge", "gt", "is_finite", "le", "lt", "ne", "not", "or", "select_n", "xor"}
_ROUNDED = {"ceil", "floor", "nextafter", "reduce_precision", "round"}
_CAST = {"bitcast_convert_type", "complex", "conj", "convert_element_type", "imag", "real"}
_LAID_OUT = {"broadcast_in_dim", "expand_dims", "iota", "reshape", "rev", "squeeze", "tile", "transpose"}
_JOINED = {"concatenate", "copy", "copy_p", "dynamic_slice", "pad", "slice", "split", "stack", "unstack"}
_REDUCED = {"reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum"}
_NAMED = {"device_put", "name", "optimization_barrier", "sharding_constraint", "stop_gradient"}
_CHEAP = frozenset(
    _SUMS | _POWERS | _ANGLES | _ERRORS | _CHOICES | _ROUNDED | _CAST | _LAID_OUT | _JOINED | _REDUCED | _NAMED
)
_CALLS = frozenset({"closed_call", "custom_jvp_call", "jit", "pjit"})


def is_cheap(equation: Any) -> bool:
    """Whether an equation may as well be done again, where a value that it computes would have to be kept.

    Example:
        >>> traced = jax.make_jaxpr(lambda x, w: jax.nn.relu(x) @ w)(jnp.ones((2, 2)), jnp.ones((2, 2)))
        >>> [is_cheap(equation) for equation in traced.jaxpr.eqns]
        [True, False]
    """
    if equation.primitive.name in _CALLS:
        return all(map(is_cheap, steps_in(equation)))
    return equation.primitive.name in _CHEAP
