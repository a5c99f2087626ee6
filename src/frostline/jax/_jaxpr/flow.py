"""Questions about every value of a traced function, answered without computing any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import or_
from typing import Any, final

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from frostline.jax._jaxpr.equations import called, carried, is_inexact

# Each of their outputs comes from the operand at its place, and from no other.
_SIDE_BY_SIDE = frozenset({"device_put", "optimization_barrier", "pbroadcast", "psum", "psum_invariant", "pvary"})


class Flow(ABC):
    """One question about every value of a traced function. The answer for each value is a set of bits.

    Loops are followed until no bit is added, and calls (``jit``, ``remat``, ``shard_map``, custom rules) into the
    function that they call. A primitive that is not known mixes all of its operands.
    """

    def through(self, closed: ClosedJaxpr, bits: Sequence[int]) -> list[int]:
        """The bits of the outputs, from those of the inputs."""
        return self._inside(closed.jaxpr, [*map(self.constant, closed.consts), *bits])

    @abstractmethod
    def constant(self, value: Any) -> int:
        """The bits of a constant."""

    @abstractmethod
    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """The bits of the results of a primitive, from those of its operands."""

    @abstractmethod
    def decided(self, bits: int) -> int:
        """The bits that a choice with these bits adds to the values that it chooses between."""

    def _inside(self, jaxpr: Jaxpr, bits: Sequence[int]) -> list[int]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], bits, strict=True))

        def read(atom: Any) -> int:
            return self.constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            known.update(zip(equation.outvars, self.results(equation, operands), strict=True))
            for atom in equation.invars:
                if not isinstance(atom, Literal) and _is_reference(atom):
                    known[atom] |= union(operands)
        return [read(atom) for atom in jaxpr.outvars]

    def results(self, equation: Any, bits: list[int]) -> list[int]:
        """The bits of the results of an equation, from those of its operands."""
        name, params = equation.primitive.name, equation.params
        if any(map(_is_reference, equation.invars)):
            return [union(bits)] * len(equation.outvars)
        if name in _SIDE_BY_SIDE:
            return bits
        if name == "scan":
            return self._scan(equation, bits)
        if name == "while":
            return self._while(params, bits)
        if name == "cond":
            return self._cond(params, bits)
        if (call := called(equation)) is not None and len(call[1].jaxpr.outvars) == len(equation.outvars):
            return self.through(call[1], bits)
        return [self.primitive(equation, bits)] * len(equation.outvars)

    def _scan(self, equation: Any, bits: list[int]) -> list[int]:
        first, last = carried(equation)
        carry = bits[first:last]
        if equation.params["length"] == 0:
            return [*carry, *[0] * (len(equation.outvars) - len(carry))]
        while True:
            results = self.through(equation.params["jaxpr"], [*bits[:first], *carry, *bits[last:]])
            grown = _unions(carry, results[: len(carry)])
            if grown == carry:
                return results
            carry = grown

    def _while(self, params: dict[str, Any], bits: list[int]) -> list[int]:
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        of_condition, of_body, carry = bits[:first], bits[first:last], bits[last:]
        while True:
            (goes_on,) = self.through(params["cond_jaxpr"], [*of_condition, *carry])
            results = self.through(params["body_jaxpr"], [*of_body, *carry])
            grown = [each | self.decided(goes_on) for each in _unions(carry, results)]
            if grown == carry:
                return carry
            carry = grown

    def _cond(self, params: dict[str, Any], bits: list[int]) -> list[int]:
        results = (self.through(branch, bits[1:]) for branch in params["branches"])
        return [each | self.decided(bits[0]) for each in reduce(_unions, results)]


@final
class DependenceFlow(Flow):
    """The inputs that each value depends on; an input is one bit.

    Args:
        result: the bits of the results of a primitive, from those of all its operands; by default the same.
    """

    def __init__(self, result: Callable[[Any, int], int] = lambda equation, bits: bits) -> None:
        self._result = result

    def constant(self, value: Any) -> int:
        """It depends on nothing."""
        return 0

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """The bits of all operands, and those that the primitive adds."""
        return self._result(equation, union(bits))

    def decided(self, bits: int) -> int:
        """The bits of the choice."""
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
class GradientFlow(Flow):
    """The values of a backward pass that can be gradients; 0 is certain to be zero.

    A gradient comes from that of the loss, or from a rule that makes one from nothing. Multiplying by zero does
    not stop it: ``0.0 * x`` has a gradient, and a NaN where x is infinite.
    """

    def constant(self, value: Any) -> int:
        """Reads numbers and arrays of the host; an array on a device is not fetched."""
        return 0 if isinstance(value, _AT_HAND) and not np.any(value) else NOT_ZERO

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """Zero where the operand in which it is linear is zero."""
        return union(bits) & FROM_LOSS | (0 if _is_zero(equation, bits) else NOT_ZERO)

    def decided(self, bits: int) -> int:
        """No bits: a choice between zeros is zero."""
        return 0


def _is_zero(equation: Any, bits: Sequence[int]) -> bool:
    name = equation.primitive.name
    if name in _PRODUCTS:
        return not all(bits)
    if name in _QUOTIENTS:
        return not bits[_QUOTIENTS[name]]
    # Positions and conditions do not matter.
    numbers = [each for atom, each in zip(equation.invars, bits, strict=True) if is_inexact(atom.aval)]
    return name in _LINEAR and not any(numbers or bits)


def _is_reference(atom: Any) -> bool:
    # An array that is written in place holds new values beside old ones.
    return hasattr(atom.aval, "inner_aval")


def union(bits: Iterable[int]) -> int:
    """The bits of several values together."""
    return reduce(or_, bits, 0)


def _unions(some: Sequence[int], others: Sequence[int]) -> list[int]:
    return [one | other for one, other in zip(some, others, strict=True)]
