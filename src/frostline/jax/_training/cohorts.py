"""Cohorts: parameters that have been trainable since the same step, with a step count of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, final, get_args

import jax
import jax.numpy as jnp
from jax.tree_util import register_dataclass, tree_leaves, tree_unflatten

from frostline._core.errors import BindError, UnsupportedError
from frostline._core.errors.base import counted
from frostline._core.plan import Plan
from frostline.jax._training.moments import Arrays, Cohort, StateLayout
from frostline.jax._training.state_arrays import StateArray

Moments = Literal["keep", "cpu", "release"]


@final
@partial(register_dataclass, data_fields=("inner", "counts", "parked"), meta_fields=("cohorts", "plan"))
@dataclass(frozen=True)
class OptimizerState:
    """The state of ``optimizer(tx)``.

    Attributes:
        inner: the state of `tx` for all trainable parameters, with the counts of the first cohort.
        counts: for each later cohort its own counts, the numbers beside moments, by their place in `inner`.
        cohorts: the names in each cohort. They are part of the structure, so a function is traced once for each set.
        plan: what is frozen and what trains; structure, too. A tree that has lost its marks gets them back by
            ``follow(params, state.plan)``.
        parked: the moments and counts of frozen parameters, those with the same counts together; their names are
            structure, too.
    """

    inner: Any
    counts: tuple[Arrays, ...]
    cohorts: tuple[tuple[str, ...], ...]
    plan: Plan
    parked: tuple[Cohort, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of all trainable parameters."""
        return frozenset(name for cohort in self.cohorts for name in cohort)


@dataclass(frozen=True)
class DividedState:
    """A state, divided.

    Attributes:
        numbers: the arrays that belong to no parameter, by their place; the counts are those of the first cohort.
        cohorts: the trainable parameters; the first cohort began first.
        parked: the cohorts of frozen parameters.
    """

    numbers: Arrays
    cohorts: tuple[Cohort, ...]
    parked: tuple[Cohort, ...]


def stepped(
    update: Callable[[Any], tuple[Any, Any]], state: OptimizerState, arrays: Sequence[StateArray], names: Sequence[str]
) -> tuple[Any, OptimizerState]:
    """Takes a step of several cohorts.

    For each cohort the transformation runs over all trainable parameters, because clipping must see all gradients, with
    the counts of that cohort. A parameter takes its update and its moments from the run of its cohort. Under ``jit``
    the common part of the runs is computed once.

    Args:
        update: the transformation, from its state to the updates and its next state.
        state: the state before.
        arrays: the arrays of the inner state.
        names: the trainable parameters, in the order of the updates.
    """
    runs = [update(inner) for inner in _starts(state, arrays)]
    cohort_of = {name: number for number, cohort in enumerate(state.cohorts) for name in cohort}
    updates = _picked([updates for updates, _ in runs], [cohort_of[name] for name in names])
    inner = _picked([inner for _, inner in runs], [0 if e.owner is None else cohort_of[e.owner] for e in arrays])
    counts = tuple(_counts(inner, arrays) for _, inner in runs[1:])
    return updates, replace(state, inner=inner, counts=counts)


def moved(
    state: OptimizerState, fresh: Any, layout: StateLayout, names: Sequence[str], plan: Plan, moments: Moments
) -> OptimizerState:
    """The state for another set of trainable parameters.

    Args:
        state: the state before.
        fresh: a state of the transformation for the new set.
        layout: the arrays of that state.
        names: the new set, in the order of the tree.
        plan: the plan of the tree.
        moments: the fate of the moments of frozen parameters.

    Raises:
        UnsupportedError: the transformation keeps one array for several parameters.
    """
    if state.names != frozenset(names):
        check_separate(layout, "optimizer(tx).update(grads, state, params)", "cannot train another set of parameters")
    return arranged(divided_state(state, layout), fresh, layout, names, plan, moments)


def divided_state(state: OptimizerState, layout: StateLayout) -> DividedState:
    """Divides a state; the layout may be of the same parameters with another trainable set."""
    numbers: Arrays = {}
    owned: dict[str, Arrays] = defaultdict(dict)
    arrays = layout.arrays_of(state.inner)
    for array, leaf in zip(arrays, tree_leaves(state.inner), strict=True):
        (numbers if array.owner is None else owned[array.owner])[array.key] = leaf
    first = {array.key: numbers[array.key] for array in arrays if array.beside_moments}
    # If nothing trains, there are counts that belong to no cohort.
    pairs = zip(state.cohorts, (first, *state.counts), strict=False)
    cohorts = (Cohort({name: owned[name] for name in names}, counts) for names, counts in pairs)
    return DividedState(numbers, tuple(cohorts), state.parked)


def arranged(
    parts: DividedState, fresh: Any, layout: StateLayout, names: Sequence[str], plan: Plan, moments: Moments
) -> OptimizerState:
    """Makes the state for the present trainable set from the parts of an earlier state.

    A parameter that still trains keeps its moments and counts. One that thawed takes its parked ones, in a cohort of
    its own, because its counts did not advance. One that trains for the first time joins a fresh cohort. A frozen one
    leaves, and is parked if moments are to be kept.

    Args:
        parts: the parts of the earlier state.
        fresh: a state of the transformation for the new set.
        layout: the arrays of that state.
        names: the new set, in the order of the tree.
        plan: the plan of the tree.
        moments: the fate of the moments of frozen parameters.
    """
    trained = frozenset(names)
    rest = frozenset(layout.names) - trained
    cohorts = [*_among(trained, parts.cohorts), *(unpark(cohort, moments) for cohort in _among(trained, parts.parked))]
    known = {name for cohort in cohorts for name in cohort.moments}
    if begun := [name for name in names if name not in known]:
        cohorts.append(Cohort({name: {} for name in begun}, _counts(fresh, layout.arrays)))
    parked = [*(park(cohort, moments) for cohort in _among(rest, parts.cohorts)), *_among(rest, parts.parked)]
    kept = () if moments == "release" else _in_order(_distinct(parked, layout), layout)
    return _joined(DividedState(parts.numbers, _distinct(cohorts, layout), kept), fresh, layout, plan)


def check_separate(layout: StateLayout, expression: str, problem: str) -> None:
    """Checks that each array of the state belongs to one parameter.

    Raises:
        UnsupportedError: the transformation keeps one array for several parameters.
    """
    if layout.shared:
        raise UnsupportedError(
            expression,
            f"{problem}: the state of tx has {counted(len(layout.shared), 'array')} for several parameters at once, "
            f"the first at state.inner{''.join(layout.shared[0])}.",
            "Freeze and thaw before state = optimizer(tx).init(params), or use a transformation with an array for each "
            "parameter: optimizer(tx) in place of optimizer(optax.flatten(tx)).",
        )


def _among(names: Collection[str], cohorts: Iterable[Cohort]) -> Iterator[Cohort]:
    """Each cohort, reduced to these names; empty ones are left out."""
    return (some for cohort in cohorts if (some := cohort.only(names)).moments)


def _distinct(cohorts: Sequence[Cohort], layout: StateLayout) -> tuple[Cohort, ...]:
    if layout.has_counts or not cohorts:
        return tuple(cohorts)
    # Without counts, cohorts do not differ.
    return (Cohort({name: kept for cohort in cohorts for name, kept in cohort.moments.items()}, {}),)


def _in_order(parked: Sequence[Cohort], layout: StateLayout) -> tuple[Cohort, ...]:
    """Sorts by the order of the tree, so that the same frozen set has the same structure again."""
    places = {name: place for place, name in enumerate(layout.names)}
    return tuple(sorted(parked, key=lambda cohort: min(places[name] for name in cohort.moments)))


def _joined(parts: DividedState, fresh: Any, layout: StateLayout, plan: Plan) -> OptimizerState:
    """Makes a state; a fresh one provides the structure, and every array that the parts lack."""
    found = dict(parts.numbers)
    for cohort in parts.cohorts:
        found |= {key: array for kept in cohort.moments.values() for key, array in kept.items()}
    if parts.cohorts:
        found |= parts.cohorts[0].counts
    leaves = [found.get(e.key, new) for e, new in zip(layout.arrays, tree_leaves(fresh), strict=True)]
    return OptimizerState(
        tree_unflatten(jax.tree.structure(fresh), leaves),
        tuple(cohort.counts for cohort in parts.cohorts[1:]),
        tuple(tuple(name for name in layout.names if name in cohort.moments) for cohort in parts.cohorts),
        plan,
        parts.parked,
    )


def _starts(state: OptimizerState, arrays: Sequence[StateArray]) -> Iterator[Any]:
    leaves, structure = jax.tree.flatten(state.inner)
    yield state.inner
    for counts in state.counts:
        own = [counts[e.key] if e.beside_moments else leaf for e, leaf in zip(arrays, leaves, strict=True)]
        yield tree_unflatten(structure, own)


def _picked(trees: Sequence[Any], choices: Sequence[int]) -> Any:
    """A tree whose leaves come from several trees."""
    leaves = [tree_leaves(tree) for tree in trees]
    picked = [leaves[choice][number] for number, choice in enumerate(choices)]
    return tree_unflatten(jax.tree.structure(trees[0]), picked)


def _counts(inner: Any, arrays: Sequence[StateArray]) -> Arrays:
    return {e.key: leaf for e, leaf in zip(arrays, tree_leaves(inner), strict=True) if e.beside_moments}


def check_moments(moments: object) -> None:
    """Checks the argument `moments`.

    Raises:
        BindError: it is not one of the three words.
    """
    if moments not in get_args(Moments):
        raise BindError(
            f"optimizer(tx, moments={moments!r})",
            "is not one of the 3 ways to treat the moments of frozen parameters:",
            (
                '"keep"     they stay where they are',
                '"cpu"      they move to main memory',
                '"release"  they are dropped, and start at zero after a thaw',
            ),
            'Write moments="release", or leave it out.',
        )


def park(cohort: Cohort, moments: Moments) -> Cohort:
    """Moves the arrays of a cohort that is frozen to where they are parked."""
    return _carried(cohort, jax.memory.Space.Host if moments == "cpu" and _has_host_memory() else None)


def unpark(cohort: Cohort, moments: Moments) -> Cohort:
    """Moves the arrays of a cohort that thaws back to its device."""
    return _carried(cohort, jax.memory.Space.Device if moments == "cpu" and _has_host_memory() else None)


def _carried(cohort: Cohort, where: Any) -> Cohort:
    # Copied, because parameters that still train have the same counts, and a buffer cannot be donated twice.
    counts = jax.tree.map(jnp.copy, cohort.counts)
    return Cohort(cohort.moments if where is None else jax.device_put(cohort.moments, where), counts)


def _has_host_memory() -> bool:
    # On a CPU all arrays are in main memory, and XLA aborts if an array of the host memory kind is donated.
    return jax.default_backend() != "cpu"
