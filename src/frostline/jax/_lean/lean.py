"""A loss that saves fewer bytes for backward where parts of the model are frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

import jax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from frostline._core.errors import NothingFrozenError, UnsupportedError
from frostline.jax._arrays import is_param
from frostline.jax._freezing.gradient import seen
from frostline.jax._freezing.survey import survey
from frostline.jax._jaxpr.leaves import Leaves
from frostline.jax._jaxpr.saved import of_moving
from frostline.jax._jaxpr.weights import FLOWS, MOVES, weight
from frostline.jax._lean.rewriting import Rewriting
from frostline.jax._uses.window import stopped

_ALLOWS_ALL_TRAINED: ContextVar[bool] = ContextVar("_ALLOWS_ALL_TRAINED", default=False)

Function = TypeVar("Function", bound=Callable[..., Any])


@contextmanager
def all_trained_allowed() -> Iterator[None]:
    """Allows lean functions with nothing frozen, to price the training of everything."""
    token = _ALLOWS_ALL_TRAINED.set(True)
    try:
        yield
    finally:
        _ALLOWS_ALL_TRAINED.reset(token)


def lean(fn: Function, *, memory_budget: int | float | None = None) -> Function:
    """The same function, which saves fewer bytes for the backward pass where the model is frozen.

    The function is read when a gradient is asked for. Steps between two products that read no trainable parameter and
    save more bytes than they are made of (an activation, a normalisation) are computed again during backward. Products
    and convolutions are never computed twice. A parameter counts as frozen if no gradient is asked for it, however
    that was said. Where nothing is gained the function stays as it is, and so does its program.

    The operations are the same. XLA compiles them in other groups, so the last bit may differ, as between any two
    programs.

    Args:
        fn: ``fn(tree, *args, **kwargs)``; the tree has the parameters.
        memory_budget: the argument of the PyTorch function, which JAX does not have.

    Returns:
        A function of the same arguments, for `value_and_grad` or for ``jax.grad``.

    Raises:
        UnsupportedError: `memory_budget` is given.
        NothingFrozenError: when differentiated: a gradient is asked for every parameter of the tree.

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
            "would have to choose layers to compute twice, but lean computes only cheap steps twice.",
            "Leave it out, or choose the layers yourself: layer = jax.checkpoint(layer), which lean leaves as it is.",
        )

    @wraps(fn)
    def leaned(tree: Any, /, *args: Any, **kwargs: Any) -> Any:
        tree = _with_stops(seen(tree))
        given = Leaves.of((tree, args, kwargs), is_param)
        returned: Any = None

        def of_arrays(*arrays: Any) -> list[Any]:
            nonlocal returned
            tree, args, kwargs = given.filled(arrays)
            returned = Leaves.of(fn(tree, *args, **kwargs))
            return returned.values

        closed = jax.make_jaxpr(of_arrays)(*given.values)
        params = sum(map(is_param, jax.tree.leaves(tree)))
        return returned.filled(_differentiable(closed, params)(*given.values, *closed.consts))

    return cast(Function, leaned)


def _with_stops(tree: Any) -> Any:
    """The tree, with gradients stopped inside frozen uses."""
    read = survey(tree)
    pinned = {slot.leaf for slot in read.layout.slots if slot.pinned}
    leaves = [stopped(leaf) if number in pinned else leaf for number, leaf in enumerate(read.leaves)]
    return jax.tree.unflatten(read.structure, leaves)


def _differentiable(closed: ClosedJaxpr, params: int) -> Callable[..., list[Any]]:
    """A traced function whose first inputs are parameters, with a rule that knows where a gradient is asked for."""
    jaxpr = closed.jaxpr
    # A constant may be part of an outer function, and be differentiated there.
    opened = ClosedJaxpr(jaxpr.replace(constvars=[], invars=[*jaxpr.invars, *jaxpr.constvars]), ())
    function = jax.custom_jvp(jaxpr_as_fun(opened))
    data = len(jaxpr.invars) - params
    kinds = [*map(weight, range(params)), *[FLOWS] * data, *[0] * len(jaxpr.constvars)]

    def rule(values: Sequence[Any], tangents: Sequence[Any]) -> Any:
        moves = [type(tangent) is not SymbolicZero for tangent in tangents]
        is_all_trained = params > 0 and all(moves[:params])
        if is_all_trained and not _ALLOWS_ALL_TRAINED.get():
            raise NothingFrozenError("lean(fn)", params, 'tree = freeze(tree, "encoder")')
        bits = [kind | MOVES * moved for kind, moved in zip(kinds, moves, strict=True)]
        chosen = opened if is_all_trained else Rewriting().of(opened, bits, [True] * len(bits))
        of_trained, *primals = of_moving(jaxpr_as_fun(chosen), values, moves)
        return jax.jvp(of_trained, primals, [each for moved, each in zip(moves, tangents, strict=True) if moved])

    function.defjvp(rule, symbolic_zeros=True)
    return function
