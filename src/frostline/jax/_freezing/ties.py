"""Ties: one array that stands under several names in a tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import jax
from jax.tree_util import tree_unflatten

from frostline._core.errors import StructureError
from frostline._core.errors.base import counted
from frostline.jax._arrays import bytes_of, has_bytes, is_param
from frostline.jax._freezing.marked import bare, marked
from frostline.jax._freezing.selection import select, written
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._uses.layout import LeafPlace

Tree = TypeVar("Tree")

# Numbers of leaves that are one array; the first one is the array.
Groups = Iterable[Sequence[int]]


def tie(tree: Tree, *paths: Any) -> Tree:
    """Returns the tree with a record that one array stands under several names.

    In JAX an array is a value: the same array at two places of a tree is two parameters, as for ``jax.grad``. In a tied
    tree it is one: its gradient is the sum over all of its names, it has one state in an optimizer, and freezing it
    under one name freezes it. The record is part of the structure of the tree, so ties pass through ``jit``,
    ``tree.map``, updates and saving. Inside a `Frozen` the array is constant, and trains under its other names.

    Args:
        tree: any pytree, for instance a tuple of models that share layers.
        paths: the names that are one array; or names of layers with the same parameters, which are tied one by one.
            Without paths, every array that is the same object at several places is tied. Inside ``jit`` an array is
            another object at each place, so give paths there.

    Raises:
        StructureError: no array stands under two names; or the arrays at the paths differ in number, shape, dtype or
            value.
        NoMatchError: a path names nothing.
        SelectorError, SamePathError, UnsupportedError: as in :func:`freeze`.
        LayerError: the tree is an array.

    Example:
        >>> w = jnp.ones(2)
        >>> def loss(params):
        ...     return (params["embed"] * 2 + params["head"] * 3).sum()
        >>> params = {"embed": w, "head": w}
        >>> jax.tree.map(list, grad(loss)(params)) == jax.tree.map(list, jax.grad(loss)(params))
        True
        >>> tied = tie(params, "embed", "head")
        >>> sorted(trainable(tied)), grad(loss)(tied)["head"]
        (['embed'], Array([5., 5.], dtype=float32))
    """
    read = survey(tree)
    if paths:
        return _tied(read, _named(read, paths))
    groups = _identical(read)
    if not groups:
        problem = f"finds no array that stands under two names among {counted(len(read.places), 'parameter')}."
        is_traced = any(isinstance(leaf, jax.core.Tracer) for leaf in read.leaves)
        found = ("It is called inside jit, where each place has an array of its own.",) if is_traced else ()
        fix = 'Name the places that are one array: tie(tree, "embed.weight", "head.weight").'
        raise StructureError("tie(tree)", problem, found, fix)
    return _tied(read, groups)


def tied_by_identity(tree: Any) -> Any:
    """The tree with every array tied that stands at several places, if there is one."""
    read = survey(tree)
    return _tied(read, _identical(read))


def _identical(read: Survey) -> list[list[int]]:
    same: dict[int, list[int]] = defaultdict(list)
    for slot in read.layout.slots:
        if is_param(read.leaves[slot.leaf]):
            same[id(read.leaves[slot.leaf])].append(slot.leaf)
    return [numbers for numbers in same.values() if len(numbers) > 1]


def _named(read: Survey, paths: Sequence[Any]) -> Groups:
    """The leaves at the paths; those of the first path with those of each other one, in order.

    Raises:
        StructureError: they cannot be one.
    """
    expression = f"{written('tie(tree', paths)})"
    order = {path: place for place, path in enumerate(read.places)}
    chosen = [sorted(select([path], read, expect=None, allow_empty=False), key=order.__getitem__) for path in paths]
    if len(paths) == 1:
        problem = f"is given one path, which names {counted(len(chosen[0]), 'parameter')}."
        fix = 'Give all names of the array: tie(tree, "embed.weight", "head.weight").'
        raise StructureError(expression, problem, tuple(chosen[0]), fix)
    if len({*map(len, chosen)}) > 1:
        problem = "is given paths with different numbers of parameters."
        found = tuple(
            f"{path!r}: {counted(len(names), 'parameter')}" for path, names in zip(paths, chosen, strict=True)
        )
        raise StructureError(expression, problem, found, "Give names of arrays, or of layers with the same parameters.")
    groups = [[read.places[name][0].leaf for name in names] for names in zip(*chosen, strict=True)]
    for names, numbers in zip(zip(*chosen, strict=True), groups, strict=True):
        _check_one(expression, names, [read.leaves[number] for number in numbers])
    return groups


def _check_one(expression: str, names: Sequence[str], leaves: Sequence[Any]) -> None:
    first = leaves[0]
    for name, leaf in zip(names, leaves, strict=True):
        if leaf is first:
            continue
        if (leaf.shape, leaf.dtype) != (first.shape, first.dtype):
            problem = f"is given {names[0]!r} and {name!r}, which cannot be one array."
            found = tuple(f"{n}: {each.dtype} {each.shape}" for n, each in zip(names, leaves, strict=True))
            raise StructureError(expression, problem, found, "Tie arrays of one shape and dtype.")
        if _are_known(first, leaf) and bytes_of(first) != bytes_of(leaf):
            problem = f"is given {names[0]!r} and {name!r}, whose values differ."
            fix = f"Put one array at both places first: that of {names[0]!r} at {name!r}."
            raise StructureError(expression, problem, (), fix)


def _are_known(*leaves: Any) -> bool:
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves) and all(map(has_bytes, leaves))


def _tied(read: Survey, groups: Groups) -> Any:
    """The tree with these leaves tied, beside those that are tied already."""
    first: dict[int, int] = {}

    def first_of(number: int) -> int:
        while number in first:
            number = first[number]
        return number

    for kept, *others in groups:
        first |= {first_of(other): first_of(kept) for other in others if first_of(other) != first_of(kept)}
    merged: dict[int, list[LeafPlace]] = defaultdict(list)
    for slot in read.layout.slots:
        merged[first_of(slot.leaf)].append(slot)
    # The first name is one under which it trains, if there is one.
    slots = (sorted(group, key=attrgetter("is_still")) for group in merged.values() if len(group) > 1)
    ties = tuple(tuple(slot.name for slot in group) for group in slots)
    tree = tree_unflatten(read.structure, [read.leaves[first_of(number)] for number in range(len(read.leaves))])
    return marked(bare(tree), read.marks(read.plan.frozen - read.pinned), ties, read.marks(read.thawed))
