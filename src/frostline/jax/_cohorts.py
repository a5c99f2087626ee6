"""Parameters that began to train at the same step, and the counts of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import jax
from jax.tree_util import register_dataclass, tree_leaves, tree_unflatten

from frostline._core.errors import UnsupportedError
from frostline._core.failure import counted
from frostline.jax._moments import Chart, Entry, Path, paths_of

Counts = dict[str, Any]


@final
@partial(register_dataclass, data_fields=("inner", "counts"), meta_fields=("cohorts",))
@dataclass(frozen=True)
class OptimizerState:
    """The state of ``optimizer(tx)``.

    Attributes:
        inner: the state of `tx` over all that trains, with the counts of the first cohort.
        counts: for each later cohort, its own of those numbers that stand beside moments, by their place in `inner`.
        cohorts: the names of each cohort; part of the structure, so a function is traced once for each set of them.
    """

    inner: Any
    counts: tuple[Counts, ...]
    cohorts: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> frozenset[str]:
        """All that trains."""
        return frozenset(name for cohort in self.cohorts for name in cohort)


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
    return updates, OptimizerState(inner, counts, state.cohorts)


def moved(state: OptimizerState, fresh: Any, chart: Chart, names: Sequence[str]) -> OptimizerState:
    """The state for another set of trainable parameters.

    What trained before and still does keeps its moments and counts; what begins to train is a cohort of its own, with
    fresh ones; what is frozen has none.

    Args:
        state: the state before.
        fresh: a state of the transformation for the new set.
        chart: what is in that state.
        names: the new set, in the order of the tree.

    Raises:
        UnsupportedError: the transformation keeps something of all parameters together.
    """
    begun = {name for name in names if name not in state.names}
    if begun or len(names) < len(state.names):
        _check_apart(chart)
    old, entries = dict(zip(paths_of(state.inner), tree_leaves(state.inner), strict=True)), chart.entries
    cohorts = [*_remaining(state, old, names)] + ([(_within(names, begun), _counts(fresh, entries))] if begun else [])
    keys = [_key(entry.path) for entry in entries if entry.beside_moments]
    if not keys and names:
        # Nothing tells them apart.
        cohorts = [(tuple(names), {})]

    def kept(entry: Entry, new: Any) -> Any:
        if entry.beside_moments and cohorts:
            return cohorts[0][1][_key(entry.path)]
        return new if entry.owner in begun else old.get(entry.path, new)

    leaves = [kept(entry, new) for entry, new in zip(entries, tree_leaves(fresh), strict=True)]
    return OptimizerState(
        tree_unflatten(jax.tree.structure(fresh), leaves),
        tuple({key: counts[key] for key in keys} for _, counts in cohorts[1:]),
        tuple(members for members, _ in cohorts),
    )


def _remaining(
    state: OptimizerState, old: dict[Path, Any], names: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], Counts]]:
    """What is left of each cohort, and its counts."""
    first = {_key(path): leaf for path, leaf in old.items()}
    for cohort, counts in zip(state.cohorts, ({}, *state.counts), strict=False):
        if members := _within(names, set(cohort)):
            yield members, first | counts


def _within(names: Sequence[str], some: set[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in some)


def _starts(state: OptimizerState, entries: Sequence[Entry]) -> Iterator[Any]:
    leaves, structure = jax.tree.flatten(state.inner)
    yield state.inner
    for counts in state.counts:
        own = [counts[_key(e.path)] if e.beside_moments else leaf for e, leaf in zip(entries, leaves, strict=True)]
        yield tree_unflatten(structure, own)


def _picked(trees: Sequence[Any], choices: Sequence[int]) -> Any:
    """A tree, each leaf from one of several trees."""
    leaves = [tree_leaves(tree) for tree in trees]
    picked = [leaves[choice][number] for number, choice in enumerate(choices)]
    return tree_unflatten(jax.tree.structure(trees[0]), picked)


def _counts(inner: Any, entries: Sequence[Entry]) -> Counts:
    return {_key(e.path): leaf for e, leaf in zip(entries, tree_leaves(inner), strict=True) if e.beside_moments}


def _key(path: Path) -> str:
    return "".join(path)


def _check_apart(chart: Chart) -> None:
    if chart.shared:
        raise UnsupportedError(
            "optimizer(tx).update(grads, state, params)",
            "is to train another set of parameters, and in the state of tx there is what belongs to several of them at "
            f"once: {counted(len(chart.shared), 'array')}, the first at state.inner{_key(chart.shared[0])}.",
            "Freeze and thaw before state = optimizer(tx).init(params), or take one that keeps them apart: "
            "optimizer(tx) in place of optimizer(optax.flatten(tx)).",
        )
