"""Parameters that began to train at the same step, and the counts of their steps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import jax
from jax.tree_util import register_dataclass, tree_leaves, tree_unflatten

from frostline._core.errors import UnsupportedError
from frostline._core.errors.base import counted
from frostline.jax._training.moments import Arrays, Chart, Cohort, Entry, Path, paths_of
from frostline.jax._training.shelf import Moments, put, taken


@final
@partial(register_dataclass, data_fields=("inner", "counts", "shelf"), meta_fields=("cohorts",))
@dataclass(frozen=True)
class OptimizerState:
    """The state of ``optimizer(tx)``.

    Attributes:
        inner: the state of `tx` over all that trains, with the counts of the first cohort.
        counts: for each later cohort, its own of those numbers that stand beside moments, by their place in `inner`.
        cohorts: the names of each cohort; part of the structure, so a function is traced once for each set of them.
        shelf: what is kept of frozen parameters, those with the same counts together; names are structure here, too.
    """

    inner: Any
    counts: tuple[Arrays, ...]
    cohorts: tuple[tuple[str, ...], ...]
    shelf: tuple[Cohort, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All that trains."""
        return frozenset(name for cohort in self.cohorts for name in cohort)


@dataclass(frozen=True)
class Parts:
    """A state taken apart.

    Attributes:
        numbers: all that belongs to no parameter, by its place; the counts are those of the first cohort.
        cohorts: what trains; the first one began first.
        shelf: what is kept of what is frozen.
    """

    numbers: Arrays
    cohorts: tuple[Cohort, ...]
    shelf: tuple[Cohort, ...]


def stepped(
    update: Callable[[Any], tuple[Any, Any]], state: OptimizerState, entries: Sequence[Entry], names: Sequence[str]
) -> tuple[Any, OptimizerState]:
    """A step of several cohorts.

    For each cohort the transformation runs over all that trains, as clipping must see all gradients, from the counts
    of that cohort; a parameter takes its update and its moments from the run of its cohort. What the runs have in
    common is computed once under ``jit``.

    Args:
        update: the transformation, from its state to the updates and its next state.
        state: the state before.
        entries: the arrays of the inner state.
        names: what trains, in the order of the updates.
    """
    runs = [update(inner) for inner in _starts(state, entries)]
    cohort_of = {name: number for number, cohort in enumerate(state.cohorts) for name in cohort}
    updates = _picked([updates for updates, _ in runs], [cohort_of[name] for name in names])
    inner = _picked([inner for _, inner in runs], [0 if e.owner is None else cohort_of[e.owner] for e in entries])
    counts = tuple(_counts(inner, entries) for _, inner in runs[1:])
    return updates, replace(state, inner=inner, counts=counts)


def moved(state: OptimizerState, fresh: Any, chart: Chart, names: Sequence[str], moments: Moments) -> OptimizerState:
    """The state for another set of trainable parameters.

    Args:
        state: the state before.
        fresh: a state of the transformation for the new set.
        chart: what is in that state.
        names: the new set, in the order of the tree.
        moments: what happens to those of what is frozen.

    Raises:
        UnsupportedError: the transformation keeps something of all parameters together.
    """
    if state.names != frozenset(names):
        check_apart(chart, "optimizer(tx).update(grads, state, params)", "is to train another set of parameters")
    return arranged(taken_apart(state, chart), fresh, chart, names, moments)


def taken_apart(state: OptimizerState, chart: Chart) -> Parts:
    """The parts of a state; a chart of the same parameters will do, whatever trains in it."""
    numbers: Arrays = {}
    owned: dict[str, Arrays] = defaultdict(dict)
    for path, leaf in zip(paths_of(state.inner), tree_leaves(state.inner), strict=True):
        entry = chart.whole.get(path)
        if entry is None or entry.owner is None:
            numbers[_key(path)] = leaf
        else:
            owned[entry.owner][entry.key] = leaf
    first = {entry.key: numbers[entry.key] for entry in chart.whole.values() if entry.beside_moments}
    # Where nothing trains, there are counts, and no cohort has them.
    pairs = zip(state.cohorts, (first, *state.counts), strict=False)
    cohorts = (Cohort({name: owned[name] for name in names}, counts) for names, counts in pairs)
    return Parts(numbers, tuple(cohorts), state.shelf)


def arranged(parts: Parts, fresh: Any, chart: Chart, names: Sequence[str], moments: Moments) -> OptimizerState:
    """A state for what trains now, from the parts of one for what trained before.

    What trained and still does keeps its moments and counts; what was frozen and is not any more has those that are on
    the shelf, and is a cohort of its own as its counts have stood still. What begins to train is a cohort with fresh
    ones. What is frozen leaves, for the shelf if moments are to be kept.

    Args:
        parts: what there is.
        fresh: a state of the transformation for the new set.
        chart: what is in that state.
        names: the new set, in the order of the tree.
        moments: what happens to those of what is frozen.
    """
    rest = set(chart.names).difference(names)
    cohorts = [*_among(names, parts.cohorts), *(taken(cohort, moments) for cohort in _among(names, parts.shelf))]
    known = {name for cohort in cohorts for name in cohort.moments}
    if begun := [name for name in names if name not in known]:
        cohorts.append(Cohort({name: {} for name in begun}, _counts(fresh, chart.entries)))
    shelf = [*(put(cohort, moments) for cohort in _among(rest, parts.cohorts)), *_among(rest, parts.shelf)]
    kept = () if moments == "release" else _in_order(_told_apart(shelf, chart), chart)
    return _joined(Parts(parts.numbers, _told_apart(cohorts, chart), kept), fresh, chart)


def check_apart(chart: Chart, expression: str, problem: str) -> None:
    """Raises where what belongs to one parameter cannot be told.

    Raises:
        UnsupportedError: the transformation keeps something of all parameters together.
    """
    if chart.shared:
        raise UnsupportedError(
            expression,
            f"{problem}, and in the state of tx there is what belongs to several of them at "
            f"once: {counted(len(chart.shared), 'array')}, the first at state.inner{_key(chart.shared[0])}.",
            "Freeze and thaw before state = optimizer(tx).init(params), or take one that keeps them apart: "
            "optimizer(tx) in place of optimizer(optax.flatten(tx)).",
        )


def _among(names: Collection[str], cohorts: Iterable[Cohort]) -> Iterator[Cohort]:
    """What is left of each cohort."""
    return (some for cohort in cohorts if (some := cohort.only(names)).moments)


def _told_apart(cohorts: Sequence[Cohort], chart: Chart) -> tuple[Cohort, ...]:
    if chart.has_counts or not cohorts:
        return tuple(cohorts)
    # Nothing tells them apart.
    return (Cohort({name: kept for cohort in cohorts for name, kept in cohort.moments.items()}, {}),)


def _in_order(shelf: Sequence[Cohort], chart: Chart) -> tuple[Cohort, ...]:
    """The order of the tree, so that coming back to a frozen set comes back to the same structure."""
    places = {name: place for place, name in enumerate(chart.names)}
    return tuple(sorted(shelf, key=lambda cohort: min(places[name] for name in cohort.moments)))


def _joined(parts: Parts, fresh: Any, chart: Chart) -> OptimizerState:
    """A state, of which a fresh one says the structure, and whatever the parts do not say."""
    found = dict(parts.numbers)
    for cohort in parts.cohorts:
        found |= {key: array for kept in cohort.moments.values() for key, array in kept.items()}
    if parts.cohorts:
        found |= parts.cohorts[0].counts
    leaves = [found.get(e.key, new) for e, new in zip(chart.entries, tree_leaves(fresh), strict=True)]
    return OptimizerState(
        tree_unflatten(jax.tree.structure(fresh), leaves),
        tuple(cohort.counts for cohort in parts.cohorts[1:]),
        tuple(tuple(name for name in chart.names if name in cohort.moments) for cohort in parts.cohorts),
        parts.shelf,
    )


def _starts(state: OptimizerState, entries: Sequence[Entry]) -> Iterator[Any]:
    leaves, structure = jax.tree.flatten(state.inner)
    yield state.inner
    for counts in state.counts:
        own = [counts[e.key] if e.beside_moments else leaf for e, leaf in zip(entries, leaves, strict=True)]
        yield tree_unflatten(structure, own)


def _picked(trees: Sequence[Any], choices: Sequence[int]) -> Any:
    """A tree, each leaf from one of several trees."""
    leaves = [tree_leaves(tree) for tree in trees]
    picked = [leaves[choice][number] for number, choice in enumerate(choices)]
    return tree_unflatten(jax.tree.structure(trees[0]), picked)


def _counts(inner: Any, entries: Sequence[Entry]) -> Arrays:
    return {e.key: leaf for e, leaf in zip(entries, tree_leaves(inner), strict=True) if e.beside_moments}


def _key(path: Path) -> str:
    return "".join(path)
