"""The trainable part of gradients, and updates in the shape of gradients."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from typing import Any, final

import jax
from jax.tree_util import (
    PyTreeDef,
    register_pytree_node,
    tree_flatten,
    tree_leaves,
    tree_structure,
    tree_unflatten,
)

from frostline._core.errors import StructureError
from frostline._core.errors.base import counted, listed
from frostline._core.plan import Plan
from frostline.jax._arrays import is_param
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.survey import Survey, survey
from frostline.jax._uses.layout import layout
from frostline.jax._uses.window import is_window


@final
class NoUpdate:
    """The update of a frozen array: adding it returns the array itself.

    Zeros would change bytes: a negative zero plus zero is zero, and XLA flushes denormals when it adds. This is a
    pytree node without children, so it passes through ``jit``, and ``optax.apply_updates`` adds it to the array.
    """

    __slots__ = ()

    # Otherwise NumPy would add it to each element of an array.
    __array_ufunc__ = None

    def __add__(self, other: Any) -> Any:
        return other

    __radd__ = __add__

    def __repr__(self) -> str:
        return "NoUpdate()"


register_pytree_node(NoUpdate, lambda _: ((), None), lambda *_: NoUpdate())


@dataclass(frozen=True)
class ParamPlaces:
    """The parameters of a tree by their places.

    Attributes:
        structure: the structure of the tree, in which None is a leaf.
        plain: the same of the tree without marks and frozen uses.
        params: for each leaf the name of the parameter there, or None.
        trainable: the names of the parameters that train.
        read: the survey of the tree.
        unmoved: the update of a frozen array. Equinox maps over the updates, and takes None there.
    """

    structure: PyTreeDef
    plain: PyTreeDef
    params: tuple[str | None, ...]
    trainable: frozenset[str]
    read: Survey
    unmoved: NoUpdate | None

    @property
    def plan(self) -> Plan:
        """The plan of the tree."""
        return self.read.plan

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters."""
        return tuple(name for name in self.params if name is not None)

    @property
    def trained_names(self) -> tuple[str, ...]:
        """The names of the trainable parameters."""
        return tuple(name for name in self.names if name in self.trainable)

    def all(self, tree: Any) -> Any:
        """The parameters of a tree in a plain tree, with None elsewhere."""
        return self._only(frozenset(self.names), tree)

    def trained(self, tree: Any) -> Any:
        """The trainable part of a tree in a plain tree, with None elsewhere.

        So trees that were made for the plain tree fit, as masks and labels.
        """
        return self._only(self.trainable, tree)

    def fitted(self, argument: Any, params: Any) -> Any:
        """An argument for the transformation, which knows the trainable part alone.

        A tree of the shape of the parameters becomes its trainable part. A function of the parameters, as for a line
        search, becomes one of the trainable part; so does the tree that it returns.
        """
        if tree_structure(argument, is_leaf=_is_hole) in (self.structure, self.plain):
            return self.trained(argument)
        if not callable(argument):
            return argument

        @wraps(argument)
        def of_trained(trained: Any, /, *args: Any, **kwargs: Any) -> Any:
            left = iter(tree_leaves(trained))
            pairs = zip(self.params, tree_flatten(params, is_leaf=_is_hole)[0], strict=True)
            leaves = [next(left) if name in self.trainable else leaf for name, leaf in pairs]
            return self.fitted(argument(tree_unflatten(self.structure, leaves), *args, **kwargs), params)

        return of_trained

    def checked(self, grads: Any, params: Any) -> Any:
        """The trainable part of the gradients.

        Raises:
            StructureError: the gradients do not fit these parameters.
        """
        leaves, structure = tree_flatten(grads, is_leaf=_is_hole)
        if not structure == self.structure:
            raise _other_structure(grads, params)
        pairs = zip(self.params, leaves, strict=True)
        if missing := [name for name, leaf in pairs if name in self.trainable and leaf is None]:
            raise _lacking(missing, len(self.trainable))
        return self.trained(grads)

    def updates(self, trained: Any, grads: Any) -> Any:
        """The updates at all places, in the shape of the gradients."""
        left = iter(jax.tree.leaves(trained))
        pairs = zip(self.params, tree_flatten(grads, is_leaf=_is_hole)[0], strict=True)
        found = [
            next(left) if name in self.trainable else None if grad is None else self.unmoved for name, grad in pairs
        ]
        return tree_unflatten(self.structure, found)

    def _only(self, names: Container[str | None], tree: Any) -> Any:
        pairs = zip(self.params, tree_flatten(tree, is_leaf=_is_hole)[0], strict=True)
        return tree_unflatten(self.plain, [leaf if name in names else None for name, leaf in pairs])


def places(params: Any, frozen: Plan | None = None) -> ParamPlaces:
    """The places of the parameters of a tree.

    Args:
        params: the tree; None takes the place of what is left out.
        frozen: a plan beside an unmarked tree.

    Raises:
        StructureError, PlanMismatchError, PinnedError: the plan does not fit the tree.
    """
    leaves, structure = tree_flatten(params, is_leaf=_is_hole)
    read = survey(params, frozen)
    arrays = read.leaves
    names: dict[int, str] = {}
    trainable: dict[int, str] = {}
    for slot in read.layout.slots:
        if is_param(arrays[slot.leaf]):
            names.setdefault(slot.leaf, slot.name)
            if not slot.is_still:
                trainable.setdefault(slot.leaf, slot.name)
    names |= trainable
    numbers = iter(range(len(arrays)))
    at_places = tuple(None if leaf is None else names.get(next(numbers)) for leaf in leaves)
    unmoved = None if any(_is_equinox(node.owner) for node in read.layout.nodes) else NoUpdate()
    trained = frozenset(trainable.values())
    return ParamPlaces(structure, _plain(structure), at_places, trained, read, unmoved)


@cache
def _is_equinox(owner: type) -> bool:
    return any((base.__module__.split(".")[0], base.__name__) == ("equinox", "Module") for base in owner.__mro__)


@lru_cache(maxsize=64)
def _plain(structure: PyTreeDef) -> PyTreeDef:
    return tree_structure(strip(tree_unflatten(structure, range(structure.num_leaves))))


def _is_hole(node: object) -> bool:
    return node is None


UPDATE = "optimizer(tx).update(grads, state, params)"
_DIFFERENTIATE = "Differentiate the tree that is updated: value, grads = value_and_grad(loss)(params, batch)."
_THAW = "Say that they are one array in the parameters, too: params = tie(params)."


def _lacking(missing: list[Any], count: int) -> StructureError:
    problem = f"got gradients without {len(missing)} of {counted(count, 'trainable parameter')}:"
    return StructureError(UPDATE, problem, _listed(missing), _DIFFERENTIATE)


def _other_structure(grads: Any, params: Any) -> StructureError:
    problem = "got gradients and parameters of different structures."
    if tied := set(_ties(grads)) - set(_ties(params)):
        found = (f"{' and '.join(names)}: one array in grads, several in params" for names in sorted(tied))
        return StructureError(UPDATE, problem, _listed(found), _THAW)
    ours, theirs = _verdicts(params), _verdicts(grads)
    differ = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
    lines = [f"{name}: {theirs.get(name, 'absent')} in grads, {ours.get(name, 'absent')} in params" for name in differ]
    lines = lines or [f"grads:  {jax.tree.structure(grads)}", f"params: {jax.tree.structure(params)}"]
    return StructureError(UPDATE, problem, _listed(lines), _DIFFERENTIATE)


def _ties(tree: Any) -> tuple[tuple[str, ...], ...]:
    return tree._frostline.ties if is_window(tree) else ()


def _verdicts(tree: Any) -> dict[str, str]:
    """Whether each name of a tree is frozen or trainable, None leaves included."""
    leaves, structure = tree_flatten(tree, is_leaf=_is_hole)
    full = tree_unflatten(structure, range(len(leaves)))
    slots = layout(full, jax.tree.structure(full)).slots
    return {slot.name: "frozen" if slot.is_still else "trainable" for slot in slots}


def _listed(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line.strip() for line in listed(tuple(lines), 5))
