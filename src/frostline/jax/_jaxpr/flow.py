"""What becomes of values on their way through a traced function, without computing any of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, final

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# Each of their outputs comes from the operand at its place, and from no other.
_SIDE_BY_SIDE = frozenset({"device_put", "optimization_barrier", "pbroadcast", "psum", "psum_invariant", "pvary"})

# Under these names a primitive keeps the function that it calls with its own operands.
_CALLED = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Flow(ABC):
    """One question about every value of a traced function; the answer for each is a set of bits.

    Loops are followed until nothing is added. What calls another function is followed into it: ``jit``, ``remat``,
    ``shard_map``, custom rules. Any other primitive that is not known mixes all of its operands.
    """

    def through(self, closed: ClosedJaxpr, bits: Sequence[int]) -> list[int]:
        """The bits of the outputs, for those of the inputs."""
        return self._inside(closed.jaxpr, [*map(self.constant, closed.consts), *bits])

    @abstractmethod
    def constant(self, value: Any) -> int:
        """The bits of a value that is known."""

    @abstractmethod
    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """The bits of what a primitive makes of its operands."""

    @abstractmethod
    def decided(self, bits: int) -> int:
        """The bits that all get whose computation is chosen by a value with these."""

    def _inside(self, jaxpr: Jaxpr, bits: Sequence[int]) -> list[int]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], bits, strict=True))

        def read(atom: Any) -> int:
            return self.constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            known.update(zip(equation.outvars, self._results(equation, operands), strict=True))
            for atom in equation.invars:
                if not isinstance(atom, Literal) and _is_reference(atom):
                    known[atom] |= _joined(operands)
        return [read(atom) for atom in jaxpr.outvars]

    def _results(self, equation: Any, bits: list[int]) -> list[int]:
        name, params = equation.primitive.name, equation.params
        if any(map(_is_reference, equation.invars)):
            return [_joined(bits)] * len(equation.outvars)
        if name in _SIDE_BY_SIDE:
            return bits
        if name == "scan":
            return self._scan(params, bits)
        if name == "while":
            return self._while(params, bits)
        if name == "cond":
            return self._cond(params, bits)
        if (called := _called(equation)) is not None:
            return self.through(called, bits)
        return [self.primitive(equation, bits)] * len(equation.outvars)

    def _scan(self, params: dict[str, Any], bits: list[int]) -> list[int]:
        first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
        constants, carried, rows = bits[:first], bits[first:last], bits[last:]
        if params["length"] == 0:
            return [*carried, *[0] * (len(params["jaxpr"].jaxpr.outvars) - len(carried))]
        while True:
            results = self.through(params["jaxpr"], [*constants, *carried, *rows])
            grown = _each_joined(carried, results[: len(carried)])
            if grown == carried:
                return results
            carried = grown

    def _while(self, params: dict[str, Any], bits: list[int]) -> list[int]:
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        of_condition, of_body, carried = bits[:first], bits[first:last], bits[last:]
        while True:
            (goes_on,) = self.through(params["cond_jaxpr"], [*of_condition, *carried])
            results = self.through(params["body_jaxpr"], [*of_body, *carried])
            grown = [each | self.decided(goes_on) for each in _each_joined(carried, results)]
            if grown == carried:
                return carried
            carried = grown

    def _cond(self, params: dict[str, Any], bits: list[int]) -> list[int]:
        results = (self.through(branch, bits[1:]) for branch in params["branches"])
        return [each | self.decided(bits[0]) for each in reduce(_each_joined, results)]


@final
class Dependence(Flow):
    """What depends on which input: an input is one bit."""

    def constant(self, value: Any) -> int:
        """It depends on nothing."""
        return 0

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """All that its operands depend on."""
        return _joined(bits)

    def decided(self, bits: int) -> int:
        """All that the choice depends on."""
        return bits


FROM_LOSS = 1  # computed from the gradient of the loss
NOT_ZERO = 2  # not known to be zero

_AT_HAND = (bool, int, float, complex, np.generic, np.ndarray)
_PRODUCTS = frozenset({"conv_general_dilated", "dot_general", "mul", "ragged_dot_general"})
_QUOTIENTS = {"div": 0, "triangular_solve": 1}  # the operand in which they are linear
_SUMS = frozenset({"add", "add_any", "cumsum", "neg", "reduce_sum", "reduce_window_sum", "scatter-add", "sub"})
_CONVERTED = frozenset({"complex", "conj", "convert_element_type", "fft", "imag", "real", "reduce_precision"})
_MOVED = frozenset({"all_gather", "all_gather_invariant", "all_to_all", "copy", "copy_p", "ppermute", "reduce_scatter"})
_NAMED = frozenset({"layout_constraint", "name", "sharding_constraint"})
_LAID_OUT = frozenset({"broadcast_in_dim", "expand_dims", "reshape", "rev", "squeeze", "tile", "transpose"})
_JOINED = frozenset({"concatenate", "dynamic_update_slice", "pad", "scatter", "select_n", "stack"})
_CUT = frozenset({"dynamic_slice", "gather", "slice", "split", "unstack"})
_PICKED = frozenset({"select_and_gather_add", "select_and_scatter_add"})
_LINEAR = _SUMS | _CONVERTED | _MOVED | _NAMED | _LAID_OUT | _JOINED | _CUT | _PICKED


@final
class Gradient(Flow):
    """What of a backward pass can be a gradient; 0 is a zero for certain.

    A gradient is made from that of the loss, or by a rule that makes one from nothing. Multiplying by zero does not
    count as a stop by itself: who writes ``0.0 * x`` gets a gradient, and a NaN where x is infinite.
    """

    def constant(self, value: Any) -> int:
        """Numbers and arrays of the host are looked at; what is on a device is not fetched."""
        return 0 if isinstance(value, _AT_HAND) and not np.any(value) else NOT_ZERO

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """Zero, where what it is linear in is zero."""
        return _joined(bits) & FROM_LOSS | (0 if _is_zero(equation, bits) else NOT_ZERO)

    def decided(self, bits: int) -> int:
        """Nothing: one of two zeros is zero."""
        return 0


def _is_zero(equation: Any, bits: Sequence[int]) -> bool:
    name = equation.primitive.name
    if name in _PRODUCTS:
        return not all(bits)
    if name in _QUOTIENTS:
        return not bits[_QUOTIENTS[name]]
    # Positions and conditions have no part in it.
    numbers = [each for atom, each in zip(equation.invars, bits, strict=True) if _is_inexact(atom)]
    return name in _LINEAR and not any(numbers or bits)


def _called(equation: Any) -> ClosedJaxpr | None:
    found = next((equation.params[key] for key in _CALLED if key in equation.params), None)
    closed = ClosedJaxpr(found, ()) if isinstance(found, Jaxpr) else found
    if closed is None or len(closed.jaxpr.invars) != len(equation.invars):
        return None
    return closed if len(closed.jaxpr.outvars) == len(equation.outvars) else None


def _is_reference(atom: Any) -> bool:
    # An array that is written in place: it holds what was written, beside what it held.
    return hasattr(atom.aval, "inner_aval")


def _is_inexact(atom: Any) -> bool:
    return bool(jnp.issubdtype(atom.aval.dtype, jnp.inexact))


def _joined(bits: Sequence[int]) -> int:
    return reduce(or_, bits, 0)


def _each_joined(some: Sequence[int], others: Sequence[int]) -> list[int]:
    return [one | other for one, other in zip(some, others, strict=True)]
