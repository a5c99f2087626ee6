"""The cost of a training step over a tree: as it is frozen, with everything trained, and at the limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import jax
import optax

from frostline._core.errors import NothingTrainableError
from frostline._core.plan import Plan
from frostline._core.reporting.bill import Bill, Culprit, UnitCost
from frostline._core.reporting.cost import Cost
from frostline._core.selecting.pattern import covering
from frostline.jax._arrays import nbytes
from frostline.jax._cost.reader import NOWHERE, GradientWork
from frostline.jax._cost.step import Step
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.parts import beside, split
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._lean.lean import all_trained_allowed
from frostline.jax._training.moments import state_bytes
from frostline.jax._training.optimizer import Optimizer

Amounts = Mapping[str, int]

# A culprit is named if frozen units pass on at least this share of the operations of a step for it alone.
_WORTH_NAMING = 0.1


def cost(
    fn: Callable[..., Any],
    tree: Any,
    /,
    *example: Any,
    frozen: Plan | None = None,
    tx: optax.GradientTransformation | None = None,
    **keywords: Any,
) -> Cost:
    """The cost of a training step over a tree: as it is frozen now, with all of it trained, and at the limit.

    The step is traced and never run. Leaves may be ``jax.ShapeDtypeStruct``, so a model of any size has a cost.
    Operations are those of matrix products and convolutions, with the dearest branch of a ``cond`` and one turn of a
    ``while``; kernels in other languages count as nothing. Saved bytes are those that ``jax.vjp`` saves for backward,
    without the arguments; under ``jit`` XLA may save fewer. A unit is a path in the tree: a step that reads parameters
    belongs to the innermost unit that has them all, any other step to the unit that computed the latest value that it
    reads. The peak is an estimate: arguments, optimizer state, and the larger one of saved bytes and gradients.

    Args:
        fn: ``fn(tree, *example, **keywords)``, of which all floating results are differentiated. It gets the tree as
            in `value_and_grad`.
        tree: any pytree, with marks and frozen uses or without.
        *example: the other arguments of the function, as in training.
        frozen: a plan beside an unmarked tree.
        tx: the optimizer, of Optax or an `optimizer` of frostline.
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
    tree = beside(tree, frozen)
    read = survey(tree)
    if not read.trainable:
        raise NothingTrainableError("cost(fn, tree)", len(read.places), len(read.pinned), len(read.leaves))
    now = Step.traced(fn, read, example, keywords, all_trained=False)
    state = _state_bytes(tx, tree)
    with all_trained_allowed():
        trained = Step.traced(fn, read, example, keywords, all_trained=True)
        all_trained = _bills(read, trained, trained.saved, _state_bytes(tx, strip(tree)))
    bills = {
        "now": _bills(read, now, now.saved, state),
        "all_trained": all_trained,
        "limit": _bills(read, now, now.least_saved, state, repeats=False),
    }
    arrays = {id(leaf): leaf for leaf in jax.tree.leaves((tree, example, keywords))}
    arguments = sum(map(nbytes, arrays.values()))
    totals: dict[str, Bill] = {}
    for name, by_unit in bills.items():
        total = Bill.total(by_unit.values())
        peak = arguments + total.optimizer_bytes + max(total.saved_bytes, total.gradient_bytes)
        totals[name] = replace(total, peak_bytes=peak)
    kinds = {module.path: module.owner.__name__ for module in read.inventory.modules if module.owner is not object}
    order = [*kinds, *map(_unit_of, read.places), *(path for by_unit in bills.values() for path in by_unit)]
    units = tuple(
        UnitCost(path, kinds.get(path, ""), **{name: by_unit.get(path, Bill()) for name, by_unit in bills.items()})
        for path in dict.fromkeys(order)
        if any(path in by_unit for by_unit in bills.values())
    )
    return Cost(units, **totals, culprit=_culprit(now))


def _state_bytes(tx: optax.GradientTransformation | None, tree: Any) -> Amounts:
    """The bytes of an optimizer's state for each parameter, without counters of a single number."""
    if tx is None:
        return {}
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if nbytes(leaf) else leaf, tree)
    # A plan beside the tree is in the marks of this one.
    init = tx.wrapped.init if isinstance(tx, Optimizer) else tx.init
    return state_bytes(jax.eval_shape(init, split(shapes)[0]), tree)


def _bills(read: Survey, step: Step, saved: Amounts, state: Amounts, *, repeats: bool = True) -> dict[str, Bill]:
    """The cost of a step, by unit."""
    work = step.read.work
    forward = _summed([*work.forward, *(work.repeated if repeats else ())])
    for_inputs = _summed((each.unit, each.flops) for each in work.gradients if not each.is_weights)
    for_weights = _summed((each.unit, each.flops) for each in work.gradients if each.is_weights)
    moving = (name for name, moved in zip(step.names, step.moves, strict=True) if moved)
    gradients = _summed((_unit_of(name), nbytes(read.leaves[read.places[name][0].leaf])) for name in moving)
    optimizer = _summed((_unit_of(name), size) for name, size in state.items())
    columns = (forward, for_inputs, for_weights, saved, gradients, optimizer)
    paths = dict.fromkeys(path for column in columns for path, amount in column.items() if amount)
    return {path: Bill(*(column.get(path, 0) for column in columns)) for path in paths}


def _summed(parts: Iterable[tuple[str, int]]) -> Amounts:
    found = Counter[str]()
    for unit, amount in parts:
        found[unit] += amount
    return found


def _unit_of(path: str) -> str:
    return path.rpartition(".")[0]


def _culprit(step: Step) -> Culprit | None:
    """The first trained parameters, if a long chain of frozen units must pass a gradient on for them alone.

    The chain that counts is the longest stretch of frozen units between two trained parameters. Where a little is
    trained in each layer, as with adapters, all stretches are short, and there is no culprit.
    """
    work = step.read.work
    order = [step.names[number] for number in step.read.order]
    chains = Counter[int]()
    for gradient in work.gradients:
        if _is_passed_on(gradient) and gradient.reach < len(order) - 1:
            chains[gradient.reach] += gradient.flops
    last, longest = max(chains.items(), key=lambda item: item[1], default=(0, 0))
    spared = [each for each in work.gradients if NOWHERE < each.reach <= last]
    without = work.flops - sum(each.flops for each in spared)
    if longest <= _WORTH_NAMING * without:
        return None
    paths = order[: last + 1]
    named = ", ".join(f'"{pattern}"' for pattern in covering(paths, order[last + 1 :]))
    chain = sum(each.flops for each in spared if _is_passed_on(each))
    return Culprit(tuple(paths), chain, work.flops, without, f"tree = fj.freeze(tree, {named})")


def _is_passed_on(gradient: GradientWork) -> bool:
    return gradient.is_of_frozen and not gradient.is_weights and gradient.reach != NOWHERE
