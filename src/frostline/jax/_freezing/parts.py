"""Splitting a tree into its trainable part and the rest, and joining them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from jax.tree_util import tree_flatten, tree_unflatten

from frostline._core.errors import NothingTrainableError, StructureError, UnsupportedError
from frostline._core.plan import Plan
from frostline.jax._freezing.marked import bare, marked
from frostline.jax._freezing.selection import select, written
from frostline.jax._freezing.survey import Survey, survey

Tree = TypeVar("Tree")


def split(tree: Tree, *selectors: Any, frozen: Plan | None = None) -> tuple[Tree, Tree]:
    """Splits a tree into its trainable part and the rest; each has the shape of the tree, with None elsewhere.

    Differentiate the trainable part alone, and give it alone to the optimizer. Then no code that reads gradients can
    bring those of frozen leaves back. Pass the rest to compiled code as an argument, so that it is no constant of the
    program. A tied array is there once.

    The parts of an unmarked tree are values, and nothing stops a gradient in them: an outer loop can differentiate
    through an inner one that trains a part. Nothing changes a mode either: for layers that hold their mode as data, use
    ``value_and_grad(loss, frozen=plan)``.

    Args:
        tree: any pytree.
        selectors: what trains, as in :func:`freeze`: ``split(params, "head")``. Without selectors and without a plan,
            the marks of the tree say it.
        frozen: a plan beside an unmarked tree, in place of selectors.

    Returns:
        ``(trainable, rest)``; ``join`` puts them together.

    Raises:
        NothingTrainableError: the selectors name nothing but frozen parameters.
        UnsupportedError: it is given selectors and a plan.
        NoMatchError, TiedError, SelectorError, SamePathError: as in :func:`freeze`.
        StructureError, PlanMismatchError, PinnedError: the plan does not fit the tree.

    Example:
        >>> trained, rest = split({"body": jnp.ones(2), "head": jnp.zeros(2)}, "head")
        >>> jax.tree.leaves(trained), jax.tree.leaves(rest)
        ([Array([0., 0.], dtype=float32)], [Array([1., 1.], dtype=float32)])
    """
    if selectors and frozen is not None:
        problem = "is given selectors, which say what trains, and a plan, which says what is frozen."
        fix = "Give one of them: split(tree, frozen=plan)."
        raise UnsupportedError(f"{written('split(tree', selectors)}, frozen=plan)", problem, fix)
    read = survey(tree, frozen)
    return parts(_training(read, selectors) if selectors else read)


def _training(read: Survey, selectors: Sequence[Any]) -> Survey:
    """The survey of the tree in which only the selected parameters train."""
    chosen = select(selectors, read, expect=None, allow_empty=False) & read.plan.trainable
    if not chosen:
        expression = f"{written('split(tree', selectors)})"
        raise NothingTrainableError(expression, len(read.places), len(read.pinned), len(read.leaves))
    return read.beside(Plan(read.plan.paths - chosen, chosen))


def parts(read: Survey) -> tuple[Any, Any]:
    """The two parts of a tree that was surveyed."""
    kept = read.trainable
    sides = zip(*((leaf, None) if n in kept else (None, leaf) for n, leaf in enumerate(read.leaves)), strict=True)
    trained, rest = sides if read.leaves else ((), ())
    return tree_unflatten(read.structure, trained), tree_unflatten(read.structure, rest)


def join(trainable: Tree, rest: Tree) -> Tree:
    """Joins the two parts of a tree that `split` made; the trainable part may have changed since.

    Raises:
        StructureError: they are not the two parts of one tree.

    Example:
        >>> trained, rest = split(freeze({"w": jnp.ones(2), "b": jnp.zeros(2)}, "w"))
        >>> join(jax.tree.map(lambda leaf: leaf + 1, trained), rest)["b"]
        Array([1., 1.], dtype=float32)
    """
    structure: Any
    one, structure = tree_flatten(trainable, is_leaf=_is_hole)
    other, other_structure = tree_flatten(rest, is_leaf=_is_hole)
    if structure != other_structure:
        found = (f"trainable: {structure}", f"rest:      {other_structure}")
        raise StructureError("join(trainable, rest)", "got two trees of different structures.", found, _PARTS)
    pairs = list(zip(one, other, strict=True))
    if twice := sum(a is not None and b is not None for a, b in pairs):
        problem = f"got two trees that both have a leaf at {twice} of {len(pairs)} places."
        raise StructureError("join(trainable, rest)", problem, (), _PARTS)
    return tree_unflatten(structure, [b if a is None else a for a, b in pairs])


_PARTS = "Join the two parts of one split: trainable, rest = split(tree)."


def _is_hole(node: object) -> bool:
    return node is None


def beside(tree: Any, frozen: Plan | None) -> Any:
    """The tree with the marks of a plan that stands beside it; the tree itself without a plan."""
    return tree if frozen is None else as_planned(survey(tree, frozen), frozen, thawed=frozen.trainable)


def as_planned(read: Survey, plan: Plan, *, thawed: frozenset[str]) -> Any:
    """The tree, with the marks of a plan.

    Args:
        read: the survey of the tree.
        plan: the plan.
        thawed: the parameters of which it was said that they train.
    """
    marks = read.marks(plan.frozen - read.pinned)
    return marked(bare(read.tree), marks, read.ties, read.marks(thawed & plan.trainable))
