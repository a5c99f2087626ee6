"""Splitting a tree into its trainable part and the rest, and joining them."""

from __future__ import annotations

from typing import Any

from jax.tree_util import tree_flatten, tree_unflatten

from frostline._core.errors import StructureError
from frostline._core.plan import Plan
from frostline.jax._freezing.marked import bare, marked
from frostline.jax._freezing.survey import Survey, survey


def split(tree: Any) -> tuple[Any, Any]:
    """Splits a tree into its trainable part and the rest; each has the shape of the tree, with None elsewhere.

    Differentiate the trainable part alone, and give it alone to the optimizer. Then no code that reads gradients can
    bring those of frozen leaves back. A tied array is there once.

    Args:
        tree: any pytree, with or without marks and frozen uses.

    Returns:
        ``(trainable, rest)``; ``join`` puts them together.

    Raises:
        SamePathError: two leaves of the tree have one name.

    Example:
        >>> trained, rest = split(freeze({"w": jnp.ones(2), "b": jnp.zeros(2)}, "w"))
        >>> jax.tree.leaves(trained), jax.tree.leaves(rest)
        ([Array([0., 0.], dtype=float32)], [Array([1., 1.], dtype=float32)])
    """
    return parts(survey(tree))


def parts(read: Survey) -> tuple[Any, Any]:
    """The two parts of a tree that was surveyed."""
    kept = read.trainable
    sides = zip(*((leaf, None) if n in kept else (None, leaf) for n, leaf in enumerate(read.leaves)), strict=True)
    trained, rest = sides if read.leaves else ((), ())
    return tree_unflatten(read.structure, trained), tree_unflatten(read.structure, rest)


def join(trainable: Any, rest: Any) -> Any:
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


def as_planned(read: Survey, plan: Plan) -> Any:
    """The tree, with the marks of a plan."""
    return marked(bare(read.tree), read.marks(plan.frozen - read.pinned), read.ties)
