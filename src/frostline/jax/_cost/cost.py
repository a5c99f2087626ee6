"""What a training step over a tree costs: as it is frozen, with all of it trained, and at the limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import optax

from frostline._core.errors import NothingTrainableError
from frostline._core.reporting.cost import Bill, Cost, UnitCost
from frostline.jax._arrays import nbytes
from frostline.jax._cost.culprit import culprit_of
from frostline.jax._cost.step import Asked, Step
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.parts import split
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._lean.lean import priced
from frostline.jax._training.moments import state_bytes

Parts = Mapping[str, int]


def cost(
    fn: Callable[..., Any],
    tree: Any,
    /,
    *example: Any,
    tx: optax.GradientTransformation | None = None,
    **keywords: Any,
) -> Cost:
    """What a training step over a tree costs: as it is frozen now, with all of it trained, and at the limit.

    The step is traced and never run; leaves may be ``jax.ShapeDtypeStruct``, so a model of any size can be asked
    about. Operations are those of products of matrices and convolutions: of a ``cond`` the dearest branch counts, of a
    ``while`` one turn, of kernels in other languages nothing. What is kept for backward is what ``jax.vjp`` keeps,
    arguments aside; under ``jit`` XLA may keep less. A unit is a path in the tree: what reads parameters belongs to
    the innermost unit that has them all, anything else to the unit that computed the latest of what it reads. The
    peak is an estimate: arguments, optimizer state, and the larger one of what is kept and of the gradients.

    Args:
        fn: ``fn(tree, *example, **keywords)``, of which all floating results are differentiated. It gets the tree as
            in `value_and_grad`.
        tree: any pytree, with marks and frozen uses or without.
        *example: the other arguments of the function, as in training.
        tx: the optimizer, of Optax; an `optimizer` of frostline, too.
        **keywords: the other arguments of the function, by name.

    Raises:
        CostError: the function stops with an error on this example, or returns nothing that has a gradient.
        NothingTrainableError: the tree has nothing to train.
        SamePathError: two leaves of the tree have one name.

    Example:
        >>> params = {"body": {"w": jnp.ones((4, 8))}, "head": {"w": jnp.ones((8, 2))}}
        >>> def loss(p, x):
        ...     return (jnp.tanh(x @ p["body"]["w"]) @ p["head"]["w"]).sum()
        >>> found = cost(loss, freeze(params, "body"), jnp.ones((3, 4)), tx=optax.adamw(1e-3))
        >>> found.now.forward_flops, found.now.input_gradient_flops, found.now.weight_gradient_flops
        (288, 0, 96)
        >>> found.now.saved_bytes, found.now.gradient_bytes, found.now.optimizer_bytes
        (96, 64, 128)
    """
    read = survey(tree)
    if not read.trainable:
        raise NothingTrainableError("cost(fn, tree)", len(read.places), len(read.pinned), len(read.leaves))
    asked = Asked(fn, read, example, keywords)
    now, kept = asked.step(all_trained=False), _kept(tx, tree)
    with priced():
        trained = asked.step(all_trained=True)
        all_trained = _bills(read, trained, trained.saved, _kept(tx, strip(tree)), repeats=True)
    bills = {
        "now": _bills(read, now, now.saved, kept, repeats=True),
        "all_trained": all_trained,
        "limit": _bills(read, now, now.least_saved, kept, repeats=False),
    }
    totals = {name: _with_peak(Bill.total(found.values()), asked.arguments) for name, found in bills.items()}
    return Cost(tuple(_units(read, bills)), **totals, culprit=culprit_of(now))


def _kept(tx: optax.GradientTransformation | None, tree: Any) -> Parts:
    """The bytes that an optimizer keeps for each parameter; single-number counters aside."""
    if tx is None:
        return {}
    trained = split(jax.tree.map(_shape, tree))[0]
    return state_bytes(jax.eval_shape(tx.init, trained), tree)


def _shape(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if nbytes(leaf) else leaf


def _bills(read: Survey, step: Step, saved: Parts, kept: Parts, *, repeats: bool) -> dict[str, Bill]:
    work = step.walk.work
    passed, own = Counter[str](), Counter[str]()
    for gradient in work.gradients:
        (own if gradient.is_weights else passed)[gradient.unit] += gradient.flops
    forward = _summed([*work.forward, *(work.repeated if repeats else ())])
    moving = [name for name, moved in zip(step.names, step.moves, strict=True) if moved]
    gradients = _summed((_owner(name), nbytes(read.leaves[read.places[name][0].leaf])) for name in moving)
    optimizer = _summed((_owner(name), size) for name, size in kept.items())
    columns = (forward, passed, own, saved, gradients, optimizer)
    paths = dict.fromkeys(path for column in columns for path, amount in column.items() if amount)
    return {path: Bill(*(column.get(path, 0) for column in columns)) for path in paths}


def _summed(parts: Iterable[tuple[str, int]]) -> Parts:
    found = Counter[str]()
    for unit, amount in parts:
        found[unit] += amount
    return found


def _owner(path: str) -> str:
    return path.rpartition(".")[0]


def _with_peak(bill: Bill, arguments: int) -> Bill:
    peak = arguments + bill.optimizer_bytes + max(bill.saved_bytes, bill.gradient_bytes)
    return replace(bill, peak_bytes=peak)


def _units(read: Survey, bills: Mapping[str, Mapping[str, Bill]]) -> Iterable[UnitCost]:
    kinds = {module.path: module.owner.__name__ for module in read.inventory.modules if module.owner is not object}
    order = [*kinds, *(_owner(path) for path in read.places), *(path for found in bills.values() for path in found)]
    for path in dict.fromkeys(order):
        if any(path in found for found in bills.values()):
            yield UnitCost(
                path, kinds.get(path, ""), **{name: found.get(path, Bill()) for name, found in bills.items()}
            )
