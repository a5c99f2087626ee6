"""The part of a tree that trains and the rest of it, and both together again."""

from __future__ import annotations

from typing import Any

from jax.tree_util import tree_flatten, tree_unflatten

from frostline._core.errors import StructureError
from frostline._core.plan import Plan
from frostline.jax._freezing.marked import bare, marked
from frostline.jax._freezing.survey import Survey, survey


def split(tree: Any) -> tuple[Any, Any]:
    """The part of a tree that trains, and the rest; each has the shape of the tree, with None where the other is.

    Differentiate, and hand to the optimizer, the first alone; then nothing that reads gradients can bring those of
    frozen leaves back. An array under several names is there once: ties are found by identity, so split outside of
    ``jit``, or a tree that was frozen outside of it.

    Args:
        tree: any pytree, with marks and frozen uses or without.

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
    """The two parts of a tree that was read."""
    tree = _with_ties(read)
    again = read if tree is read.tree else survey(tree)
    kept = again.trainable
    sides = zip(*((leaf, None) if n in kept else (None, leaf) for n, leaf in enumerate(again.leaves)), strict=True)
    trained, rest = sides if again.leaves else ((), ())
    return tree_unflatten(again.structure, trained), tree_unflatten(again.structure, rest)


def join(trainable: Any, rest: Any) -> Any:
    """The tree of which `split` made two parts; the trainable one may have moved since.

    Raises:
        StructureError: they are not two parts of one tree.

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


def _with_ties(read: Survey) -> Any:
    """The tree, each array in it once; its marks and ties are all at its root then, so that none hides another."""
    several = any(len({slot.leaf for slot in group}) > 1 for group in read.arrays)
    return as_planned(read, read.plan) if several else read.tree


def as_planned(read: Survey, plan: Plan) -> Any:
    """A tree that was read, with the marks of a plan of it."""
    return marked(bare(read.tree), read.marks(plan.frozen - read.pinned), read.ties)
