"""What gives other values in each call, or does something outside of the trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

from jax.extend.core import ClosedJaxpr

from frostline.jax._jaxpr.flow import Flow
from frostline.jax._jaxpr.partial_inner import closed_in, steps_in

_RANDOM = frozenset({"random_bits", "random_gamma", "rng_bit_generator", "rng_uniform", "threefry2x32"})


def restless(equation: Any) -> Iterator[str]:
    """The names of such steps in an equation.

    Example:
        >>> traced = jax.make_jaxpr(lambda key, x: x * jax.random.bernoulli(key, 0.5, (2,)))
        >>> [name for each in traced(jax.random.key(0), jnp.ones(2)).jaxpr.eqns for name in restless(each)]
        ['random_bits']
    """
    if is_restless(equation):
        yield equation.primitive.name
    for each in steps_in(equation):
        yield from restless(each)


def is_restless(equation: Any) -> bool:
    """Whether an equation is such a step by itself."""
    has_effect = bool(equation.effects) and not any(closed_in(equation))
    return equation.primitive.name in _RANDOM or has_effect


@final
class _Keyed(Flow):
    """Which random steps depend on an input."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}

    def constant(self, value: Any) -> int:
        """It depends on nothing."""
        return 0

    def primitive(self, equation: Any, bits: Sequence[int]) -> int:
        """All that its operands depend on."""
        if equation.primitive.name in _RANDOM and any(bits):
            self.found[equation.primitive.name] = None
        return int(any(bits))

    def decided(self, bits: int) -> int:
        """All that the choice depends on."""
        return bits


def keyed(closed: ClosedJaxpr, varies: Sequence[bool]) -> list[str]:
    """The names of random steps whose key comes from an input.

    Args:
        closed: the function.
        varies: of each input, whether it is one of a sample.
    """
    flow = _Keyed()
    flow.through(closed, [int(each) for each in varies])
    return list(flow.found)
