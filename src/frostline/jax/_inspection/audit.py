"""The audit of a loss: which parameters it can move, read from its trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from frostline._core.audit import Audit
from frostline._core.errors import UnsupportedError
from frostline._core.plan import Plan
from frostline.jax._arrays import ARRAYS, described, is_param
from frostline.jax._freezing.gradient import seen
from frostline.jax._freezing.marked import bare, marked
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._jaxpr.flow import FROM_LOSS, NOT_ZERO, DependenceFlow, GradientFlow


def audit(
    loss: Callable[..., Any],
    tree: Any,
    /,
    *batch: Any,
    frozen: Plan | None = None,
    has_aux: bool = False,
    **keywords: Any,
) -> Audit:
    """Which parameters of a tree can receive a gradient of a loss at all, without computing anything.

    The loss is traced, forwards and backwards, and the two traces are read: through ``jit``, ``scan``, ``cond``,
    ``remat``, custom rules, and code of others, where a ``stop_gradient`` may be hidden. Arrays may be
    ``jax.ShapeDtypeStruct``, so a model need not fit anywhere. A gradient that merely happens to be zero counts as
    one. A tied array is reached where one of them is.

    Args:
        loss: ``loss(tree, *batch, **keywords)``, returning a scalar, or ``(scalar, aux)`` with `has_aux`. It gets the
            tree as in `value_and_grad`: without marks, gradients stopped at what they freeze.
        tree: any pytree, with marks and frozen uses or without.
        batch: the other arguments of the loss.
        frozen: a plan beside an unmarked tree.
        has_aux: whether the loss returns something beside the scalar.
        keywords: the other arguments of the loss.

    Raises:
        UnsupportedError: the loss returns no real scalar.
        SamePathError: two leaves of the tree have one name.

    Example:
        >>> params = {"body": jnp.ones(2), "head": jnp.ones(2), "spare": jnp.ones(2)}
        >>> found = audit(lambda p, x: (jax.lax.stop_gradient(p["body"] * x) * p["head"]).sum(), params, jnp.ones(2))
        >>> print(found)
        1 of 3 parameters can receive a gradient.
        reached: 1
          head
        stopped: 1
          body
        unused: 1
          spare
        No gradient comes to 2 that are trainable: an optimizer would only let them decay.
        Freeze them: tree = follow(tree, audit.plan).
        >>> sorted(trainable(follow(params, found.plan)))
        ['head']
    """
    read = survey(tree, frozen)
    apart = survey(_without_ties(read))
    traced = _traced(loss, apart, batch, keywords, has_aux=has_aux)
    names = {slot.leaf: slot.name for slot in apart.layout.slots}
    params = [names[number] for number in range(len(apart.leaves)) if is_param(apart.leaves[number])]
    reached = _chosen(params, traced.reached())
    used = _chosen(params, traced.used())
    return _sorted_out(read, reached, used)


def _without_ties(read: Survey) -> Any:
    # Each name gets a leaf of its own, so that an array can be frozen under one name and train under another.
    return marked(bare(read.tree), read.marks(read.plan.frozen - read.pinned), (), frozenset())


def _sorted_out(read: Survey, reached: frozenset[str], used: frozenset[str]) -> Audit:
    names = {path: {slot.name for slot in slots} for path, slots in read.places.items()}
    moved = frozenset(path for path in names if names[path] & reached)
    # A custom rule may give a gradient to a parameter on which the loss does not depend.
    stopped = frozenset(path for path in names if names[path] & used) - moved
    return Audit(moved, stopped, frozenset(names) - moved - stopped, read.plan.frozen)


def _chosen(names: list[str], are_chosen: Iterable[bool]) -> frozenset[str]:
    return frozenset(name for name, is_chosen in zip(names, are_chosen, strict=True) if is_chosen)


@final
@dataclass(frozen=True)
class _Traced:
    """A loss as a function of parameters, and of arrays of which only the shape is known."""

    forward: ClosedJaxpr
    params: list[Any]
    shapes: list[Any]

    def used(self) -> Iterable[bool]:
        """For each parameter, whether the loss depends on it."""
        count = len(self.params)
        inputs = [1 << number for number in range(count)] + [0] * len(self.shapes)
        loss = DependenceFlow().through(self.forward, inputs)[0]
        return [bool(loss >> number & 1) for number in range(count)]

    def reached(self) -> Iterable[bool]:
        """For each parameter, whether it can receive a gradient."""
        of_leaves = jaxpr_as_fun(self.forward)

        def pulled_back(gradient: Any, params: list[Any], shapes: list[Any]) -> Any:
            return jax.vjp(lambda params: of_leaves(*params, *shapes)[0], params)[1](gradient)

        value = jax.ShapeDtypeStruct((), self.forward.out_avals[0].dtype)
        backward = jax.make_jaxpr(pulled_back)(value, self.params, self.shapes)
        inputs = [FROM_LOSS | NOT_ZERO] + [NOT_ZERO] * (len(self.params) + len(self.shapes))
        return map(bool, GradientFlow().through(backward, inputs))


def _traced(
    loss: Callable[..., Any], read: Survey, batch: tuple[Any, ...], keywords: dict[str, Any], *, has_aux: bool
) -> _Traced:
    leaves, structure = jax.tree.flatten((read.tree, batch, keywords))
    moving = [number for number, leaf in enumerate(read.leaves) if is_param(leaf)]
    moved = frozenset(moving)
    # All other leaves keep their values, because a loss may read them while it is traced.
    is_hollow = [isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves]
    hollow = [number for number in range(len(leaves)) if is_hollow[number] and number not in moved]

    def of_leaves(params: list[Any], shapes: list[Any]) -> Any:
        filled = dict(enumerate(leaves)) | dict(zip(moving + hollow, params + shapes, strict=True))
        tree, batch, keywords = jax.tree.unflatten(structure, filled.values())
        return _value(loss(seen(tree), *batch, **keywords), has_aux=has_aux)

    params, shapes = [leaves[number] for number in moving], [leaves[number] for number in hollow]
    return _Traced(jax.make_jaxpr(of_leaves)(params, shapes), params, shapes)


def _value(returned: Any, *, has_aux: bool) -> Any:
    """The loss in the returned value."""
    is_pair = isinstance(returned, tuple | list) and len(returned) == 2
    value = returned[0] if has_aux and is_pair else returned
    if _is_real_scalar(value) and (is_pair or not has_aux):
        return value
    found = f"({', '.join(map(described, returned))})" if isinstance(returned, tuple) else described(returned)
    raise UnsupportedError(
        f"audit(loss, tree{', has_aux=True' if has_aux else ''})",
        f"needs a loss that returns {'(scalar, aux)' if has_aux else 'a real scalar'}, but this one returns {found}.",
        "Return loss.mean(). For a loss that returns (loss, aux), call audit(loss, tree, has_aux=True).",
    )


def _is_real_scalar(value: Any) -> bool:
    is_number = isinstance(value, (*ARRAYS, np.generic, float)) and np.ndim(value) == 0
    return is_number and bool(jnp.issubdtype(jnp.result_type(value), jnp.floating))
