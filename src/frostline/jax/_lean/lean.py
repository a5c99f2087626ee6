"""A loss of which less is kept for backward, where parts of the model are frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from frostline._core.errors import NothingFrozenError, UnsupportedError
from frostline.jax._arrays import is_param
from frostline.jax._freezing.gradient import seen
from frostline.jax._freezing.survey import survey
from frostline.jax._jaxpr.model import Leaves
from frostline.jax._jaxpr.weights import FLOWS, MOVES, weight
from frostline.jax._lean.rewriting import Rewriting
from frostline.jax._uses.window import stopped

_IS_PRICED: ContextVar[bool] = ContextVar("_IS_PRICED", default=False)


@contextmanager
def priced() -> Iterator[None]:
    """Where it is asked what it would cost to train everything, there is nothing wrong with having nothing frozen."""
    token = _IS_PRICED.set(True)
    try:
        yield
    finally:
        _IS_PRICED.reset(token)


def lean(fn: Callable[..., Any], *, memory_budget: int | float | None = None) -> Callable[..., Any]:
    """The same function, of which fewer bytes are kept for the backward pass where the model is frozen.

    When a gradient is asked for, the function is read. What lies between two products, reads no trainable parameter,
    and keeps more bytes than it is made of (an activation, a normalisation) is computed again during backward, from
    what it is made of. Products and convolutions are never computed twice. Frozen is what no gradient is asked for, in
    whichever way that was said. Where nothing is to be gained the function stays as it is, and so does its program.

    It computes the same with the same operations. XLA compiles them in other groups, so the last bit may be another
    one, as between any two programs.

    Args:
        fn: ``fn(tree, *args, **kwargs)``; the tree has the parameters.
        memory_budget: as in PyTorch; JAX has no twin of it.

    Returns:
        A function of the same arguments, for `value_and_grad` or for ``jax.grad``.

    Raises:
        UnsupportedError: `memory_budget` is given.
        NothingFrozenError: when differentiated: a gradient is asked for with respect to every parameter of the tree.

    Example:
        >>> params = freeze([jnp.eye(8) * n for n in (1, 2, 3)], "[1:]")
        >>> def loss(params, x):
        ...     for w in params:
        ...         x = jax.nn.gelu(x @ w)
        ...     return x.sum()
        >>> [cost(fn, params, jnp.ones((64, 8))).now.saved_bytes for fn in (loss, lean(loss))]
        [30720, 14336]
    """
    if memory_budget is not None:
        raise UnsupportedError(
            f"lean(fn, memory_budget={memory_budget!r})",
            "would have to choose which layers to compute twice, and here nothing but what is cheap is computed twice.",
            "Leave it out, or choose the layers: layer = jax.checkpoint(layer), which lean leaves as they are.",
        )

    @wraps(fn)
    def leaned(tree: Any, /, *args: Any, **kwargs: Any) -> Any:
        tree = _with_stops(seen(tree))
        leaves, structure = jax.tree.flatten((tree, args, kwargs))
        # All else is what it is: a function may read it while it is traced.
        dynamic = [number for number, leaf in enumerate(leaves) if is_param(leaf)]

        returned: Any = None

        def of_arrays(*arrays: Any) -> list[Any]:
            nonlocal returned
            filled = dict(enumerate(leaves)) | dict(zip(dynamic, arrays, strict=True))
            tree, args, kwargs = jax.tree.unflatten(structure, filled.values())
            returned = Leaves.of(fn(tree, *args, **kwargs))
            return returned.values

        arrays = [leaves[number] for number in dynamic]
        closed = jax.make_jaxpr(of_arrays)(*arrays)
        params = sum(map(is_param, jax.tree.leaves(tree)))
        return returned.filled(_differentiable(closed, params)(*arrays, *closed.consts))

    return leaned


def _with_stops(tree: Any) -> Any:
    """The tree, with gradients stopped at what is inside of frozen uses."""
    read = survey(tree)
    still = {slot.leaf for slot in read.layout.slots if slot.pinned}
    return jax.tree.unflatten(
        read.structure, [stopped(leaf) if number in still else leaf for number, leaf in enumerate(read.leaves)]
    )


def _differentiable(closed: ClosedJaxpr, params: int) -> Callable[..., list[Any]]:
    """A traced function with a rule of its own, which knows where a gradient is asked for.

    Args:
        closed: the function.
        params: how many of its inputs are parameters; they come first.
    """
    jaxpr = closed.jaxpr
    # A constant may be part of an outer function, and be differentiated there.
    whole = ClosedJaxpr(jaxpr.replace(constvars=[], invars=[*jaxpr.invars, *jaxpr.constvars]), ())
    function = jax.custom_jvp(jaxpr_as_fun(whole))

    def rule(values: Sequence[Any], tangents: Sequence[Any]) -> Any:
        moves = [type(tangent) is not SymbolicZero for tangent in tangents]
        is_all_trained = params > 0 and all(moves[:params])
        if is_all_trained and not _IS_PRICED.get():
            raise NothingFrozenError("lean(fn)", params, 'tree = freeze(tree, "encoder")')
        bits = [_bits_of(number, params, len(jaxpr.invars)) | MOVES * moved for number, moved in enumerate(moves)]
        chosen = whole if is_all_trained else Rewriting().of(whole, bits, [True] * len(bits))

        def of_moving(*moving: Any) -> list[Any]:
            given = iter(moving)
            inputs = (next(given) if moved else each for moved, each in zip(moves, values, strict=True))
            return jaxpr_as_fun(chosen)(*inputs)

        primals = [each for moved, each in zip(moves, values, strict=True) if moved]
        return jax.jvp(of_moving, primals, [each for moved, each in zip(moves, tangents, strict=True) if moved])

    function.defjvp(rule, symbolic_zeros=True)
    return function


def _bits_of(number: int, params: int, inputs: int) -> int:
    """What is known of an input by its place: parameters come first, then data, then constants."""
    if number < params:
        return weight(number)
    return FLOWS if number < inputs else 0
