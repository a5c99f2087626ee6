"""Freeze and thaw a tree, and read or follow its plan."""

from __future__ import annotations

from typing import Any, TypeVar

import jax

from frostline._core.errors import PinnedError
from frostline._core.plan import Plan
from frostline.jax._freezing.marked import bare
from frostline.jax._freezing.parts import as_planned
from frostline.jax._freezing.selection import select, written
from frostline.jax._freezing.survey import survey

Tree = TypeVar("Tree")


def freeze(tree: Tree, *selectors: Any, expect: int | None = None, allow_empty: bool = False) -> Tree:
    """Returns the tree with more of it frozen, and leaves the given tree unchanged.

    The result is called, indexed, mapped and traced like the tree. Gradients stop at frozen arrays, held modules are in
    evaluation mode, and `value_and_grad`, `split`, `mask` and `optimizer` know which arrays train. An array is a
    value: an array that stands at several places is frozen where it is named, and everywhere only if :func:`tie` has
    said that it is one. So after ``target = params`` a target can be frozen alone.

    The result is read-only: methods that change a dict or list in place raise. The marks of a mapping are handed on by
    ``tree.copy()`` and ``tree | other``. What else makes a new tree, such as ``{**tree}``, ``tree.replace(...)`` or a
    restored checkpoint, has no marks; an optimizer refuses it, and ``follow(tree, plan)`` marks it again.

    Args:
        tree: any pytree: a module, a dict of parameters, a tuple of models.
        selectors: read in order: paths such as ``"encoder.layers[:-2]"``, ``"!head"`` to take back, selector values,
            modules or arrays of the tree, or lists of these. No selector means the whole tree.
        expect: how many parameters must be selected.
        allow_empty: whether a selector may match nothing.

    Raises:
        NoMatchError: a selector matches nothing.
        CountError: another number of parameters than `expect` is selected.
        TiedError: one name of an array is chosen and another refused.
        SelectorError: a selector cannot be read.
        SamePathError: two leaves of the tree have one name.
        UnsupportedError: rows of an array are selected.
        LayerError: `tree` is an array.

    Example:
        >>> params = {"body": {"w": jnp.ones((2, 2))}, "head": {"w": jnp.ones(2)}}
        >>> frozen = freeze(params, "**", "!head")
        >>> sorted(trainable(frozen))
        ['head.w']
        >>> sorted(trainable(params))
        ['body.w', 'head.w']
    """
    read = survey(tree)
    paths = select(selectors, read, expect=expect, allow_empty=allow_empty)
    return as_planned(read, read.plan.freeze(paths), thawed=read.thawed) if paths - read.pinned else tree


def thaw(tree: Tree, *selectors: Any, expect: int | None = None, allow_empty: bool = False) -> Tree:
    """Returns the tree with less of it frozen. Frozen uses, ``Frozen(layer)``, stay frozen.

    Args:
        tree: any pytree.
        selectors: as in :func:`freeze`. No selector means the whole tree.
        expect: how many parameters must be selected.
        allow_empty: whether a selector may match nothing.

    Returns:
        The tree. It records what was thawed: a tree without a record may have lost its marks on the way, and an
        optimizer does not take that for a thaw. ``strip`` takes all marks off.

    Raises:
        PinnedError: a selector names nothing but frozen uses.
        NoMatchError, CountError, TiedError, SelectorError, SamePathError, UnsupportedError: as in :func:`freeze`.

    Example:
        >>> params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
        >>> plan(thaw(freeze(params), "b")).frozen
        frozenset({'w'})
    """
    read = survey(tree)
    paths = select(selectors, read, expect=expect, allow_empty=allow_empty)
    if paths and not paths - read.pinned:
        raise PinnedError(f"thaw({written('tree', selectors)})", tuple(sorted(paths)))
    paths -= read.pinned
    return as_planned(read, read.plan.thaw(paths), thawed=read.thawed | paths)


def plan(tree: Any, *selectors: Any, expect: int | None = None, allow_empty: bool = False) -> Plan:
    """The plan of a tree: what is frozen in it, as a value.

    With selectors, it is the plan of ``freeze(tree, *selectors)``, and the tree stays as it is. Every verb takes such a
    plan beside the tree: ``grad(loss, frozen=plan)``, ``optimizer(tx, frozen=plan)``, ``split(tree, frozen=plan)``,
    ``guard(tree, plan)``. So the tree has no marks, and whatever was made for it fits: masks, labels, shardings,
    ``in_axes``, checkpoints. A plan is a pytree without leaves. It can be an argument of compiled code, which is traced
    once for each plan.

    Args:
        tree: any pytree, with or without arrays: ``jax.ShapeDtypeStruct`` is enough.
        selectors: what is frozen beside what is frozen in the tree, as in :func:`freeze`.
        expect: how many parameters must be selected.
        allow_empty: whether a selector may match nothing.

    Raises:
        SamePathError: two leaves of the tree have one name.
        NoMatchError, CountError, TiedError, SelectorError, UnsupportedError: as in :func:`freeze`.

    Example:
        >>> params = {"body": {"w": jnp.ones((2, 2))}, "head": {"w": jnp.ones(2)}}
        >>> plan(params, "body")
        Plan(frozen=1, trainable=1)
        >>> plan(params, "body") == plan(freeze(params, "body"))
        True
    """
    read = survey(tree)
    if not selectors:
        return read.plan
    return read.plan.freeze(select(selectors, read, expect=expect, allow_empty=allow_empty))


def follow(tree: Tree, plan: Plan) -> Tree:
    """Returns the tree frozen as a plan says; ``plan(tree).change_to(plan)`` tells the difference.

    Args:
        tree: the tree that the plan is for.
        plan: the frozen and the trainable paths.

    Raises:
        PlanMismatchError: the plan and the tree have different paths.
        PinnedError: the plan trains a frozen use.
        LayerError: `tree` is an array.

    Example:
        >>> params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
        >>> frozen = freeze(params, "w")
        >>> plan(follow(params, plan(frozen))) == plan(frozen)
        True
    """
    read = survey(tree)
    # Computed from the plan, so that an error names the right side.
    change = plan.change_to(read.plan).inverse()
    plan.check_no_buffers()
    if change.thaw & read.pinned:
        raise PinnedError("follow(tree, plan)", tuple(sorted(change.thaw & read.pinned)))
    return as_planned(read, plan, thawed=plan.trainable)


def trainable(tree: Any, *, frozen: Plan | None = None) -> dict[str, Any]:
    """The trainable arrays by path; ``split(tree)`` returns them in the shape of the tree.

    Args:
        tree: any pytree.
        frozen: a plan beside an unmarked tree.

    Example:
        >>> sorted(trainable([{"w": jnp.ones(2), "steps": 3}, Frozen({"w": jnp.ones(2)})]))
        ['0.w']
    """
    read = survey(tree, frozen)
    return {path: read.leaves[read.places[path][0].leaf] for path in read.places if path in read.plan.trainable}


def mask(tree: Any, *, frozen: Plan | None = None) -> Any:
    """The tree without marks, with a bool for each leaf: whether it trains.

    The result fits every tree that was made for the unmarked one. It is a mask for Optax, or becomes labels, and it is
    a filter spec of Equinox for an unmarked tree: ``eqx.partition(tree, mask(tree, frozen=plan))``.

    Args:
        tree: any pytree.
        frozen: a plan beside an unmarked tree.

    Example:
        >>> mask(freeze([{"w": jnp.ones(2), "steps": 3}, {"w": jnp.ones(2)}], "[1]"))
        [{'steps': False, 'w': True}, {'w': False}]
    """
    read = survey(tree, frozen)
    moving = {slot.leaf for path in read.plan.trainable for slot in read.places[path]}
    return bare(jax.tree.unflatten(read.structure, [number in moving for number in range(len(read.leaves))]))
