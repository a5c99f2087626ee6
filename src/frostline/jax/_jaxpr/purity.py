"""Equations that may run again at no cost, and equations whose result is another one in each call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr

from frostline.jax._jaxpr.equations import functions_in, nested
from frostline.jax._jaxpr.flow import DependenceFlow

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
_CALLS = {"closed_call", "custom_jvp_call", "jit", "pjit"}
_CHEAP = _SUMS | _POWERS | _ANGLES | _ERRORS | _CHOICES | _ROUNDED | _CAST | _LAID_OUT | _JOINED | _REDUCED | _NAMED
_CHEAP |= _CALLS
_RANDOM = frozenset({"random_bits", "random_gamma", "rng_bit_generator", "rng_uniform", "threefry2x32"})


def is_cheap(equation: Any) -> bool:
    """Whether an equation costs next to nothing beside a matrix product: one pass over what it reads.

    Example:
        >>> traced = jax.make_jaxpr(lambda x, w: jax.nn.relu(x) @ w)(jnp.ones((2, 2)), jnp.ones((2, 2)))
        >>> [is_cheap(equation) for equation in traced.jaxpr.eqns]
        [True, False]
    """
    return all(each.primitive.name in _CHEAP for each in nested(equation))


def random_steps(equation: Any) -> Iterator[str]:
    """The names of the primitives in an equation that are random, or act outside of the trace.

    Example:
        >>> traced = jax.make_jaxpr(lambda key, x: x * jax.random.bernoulli(key, 0.5, (2,)))
        >>> [name for each in traced(jax.random.key(0), jnp.ones(2)).jaxpr.eqns for name in random_steps(each)]
        ['random_bits']
    """
    for each in nested(equation):
        has_own_effect = bool(each.effects) and not any(functions_in(each))
        if each.primitive.name in _RANDOM or has_own_effect:
            yield each.primitive.name


def keyed_steps(closed: ClosedJaxpr, varies: Sequence[bool]) -> list[str]:
    """The names of the random primitives whose key comes from an input that varies."""
    found: dict[str, None] = {}

    def noted(equation: Any, bits: int) -> int:
        if equation.primitive.name in _RANDOM and bits:
            found[equation.primitive.name] = None
        return bits

    DependenceFlow(noted).through(closed, list(map(int, varies)))
    return list(found)
