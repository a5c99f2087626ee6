"""The moments in the state of an Optax transformation: which array belongs to which parameter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, final

import jax
from jax.tree_util import PyTreeDef, register_dataclass, tree_flatten, tree_flatten_with_path, tree_unflatten

from frostline.jax._arrays import nbytes
from frostline.jax._freezing.survey import survey
from frostline.jax._uses.layout import keys_of
from frostline.jax._uses.window import THROUGH

Path = tuple[str, ...]
Arrays = dict[str, Any]


@final
@partial(register_dataclass, data_fields=("moments", "counts"), meta_fields=())
@dataclass(frozen=True)
class Cohort:
    """Parameters that have taken the same steps, with their arrays in the state of an optimizer.

    Attributes:
        moments: for each parameter its arrays, by their place in the state.
        counts: the numbers that stand beside moments, by their place in the state.
    """

    moments: dict[str, Arrays]
    counts: Arrays

    def only(self, names: Collection[str]) -> Cohort:
        """The cohort without all other parameters."""
        return Cohort({name: kept for name, kept in self.moments.items() if name in names}, self.counts)


@dataclass(frozen=True, slots=True)
class StateArray:
    """One array of a state.

    Attributes:
        path: its place; windows add nothing.
        owner: the name of the parameter whose moment it is; None for a number.
        beside_moments: whether it is a number in a node with moments, that is, the count of their steps.
        label: its place as text, without the name of its owner.
        shape: its shape and dtype.
    """

    path: Path
    owner: str | None
    beside_moments: bool
    label: str
    shape: jax.ShapeDtypeStruct

    @property
    def key(self) -> str:
        """The path as one text."""
        return "".join(self.path)


@dataclass(frozen=True)
class StateLayout:
    """The arrays that a transformation keeps for a tree.

    They are found by calling its ``init``, because no rule on names would hold for all transformations.

    Attributes:
        init: the function of the transformation.
        tree: the structure of all parameters.
        shapes: their shapes and dtypes.
        names: their names.
        trainable: the names of those that train.
    """

    init: Callable[[Any], Any]
    tree: PyTreeDef
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    names: tuple[str, ...]
    trainable: frozenset[str]

    @cached_property
    def structure(self) -> PyTreeDef:
        """The structure of the state for the trainable parameters."""
        return jax.tree.structure(self._of_trainable)

    def other_shapes(self, state: Any) -> Iterator[tuple[StateArray, tuple[int, ...]]]:
        """The arrays of a state of this structure that have another shape than a fresh one would have; with it."""
        fresh, leaves = jax.tree.leaves(self._of_trainable), jax.tree.leaves(state)
        if [leaf.shape for leaf in fresh] != [jax.numpy.shape(leaf) for leaf in leaves]:
            pairs = zip(self.arrays, map(jax.numpy.shape, leaves), strict=True)
            yield from ((array, shape) for array, shape in pairs if array.shape.shape != shape)

    @cached_property
    def arrays(self) -> tuple[StateArray, ...]:
        """The arrays of the state for the trainable parameters, in the order of JAX."""
        return self._state_arrays(self._of_trainable)

    @cached_property
    def whole(self) -> dict[Path, StateArray]:
        """The arrays of the state for all parameters, except those that several parameters share."""
        found = self._state_arrays(self._state(range(len(self.names))))
        return {array.path: array for array in found if array.path in self._owners}

    @cached_property
    def shared(self) -> tuple[Path, ...]:
        """The arrays that belong to several parameters at once."""
        return tuple(path for path in paths_of(self._state(range(len(self.names)))) if path not in self._owners)

    @cached_property
    def has_counts(self) -> bool:
        """Whether the state has counts, by which cohorts differ."""
        return any(array.beside_moments for array in self.whole.values())

    @cached_property
    def _of_trainable(self) -> Any:
        return self._state(number for number, name in enumerate(self.names) if name in self.trainable)

    def _state_arrays(self, state: Any) -> tuple[StateArray, ...]:
        arrays = zip(paths_of(state), _texts_of(state), jax.tree.leaves(state), strict=True)
        return tuple(self._state_array(path, texts, shape) for path, texts, shape in arrays)

    def _state_array(self, path: Path, texts: Path, shape: jax.ShapeDtypeStruct) -> StateArray:
        owner = self._owners.get(path)
        if owner is None:
            return StateArray(path, None, path[:-1] in self._nodes, ".".join(texts), shape)
        of_param = self._paths[owner]
        start = _start(path, of_param)
        parts = (texts,) if start is None else (texts[:start], texts[start + len(of_param) :])
        return StateArray(path, owner, False, "/".join(".".join(part) for part in parts if part), shape)

    @cached_property
    def _nodes(self) -> frozenset[Path]:
        """The nodes with moments among their children."""
        found = ((path, _start(path, self._paths[owner])) for path, owner in self._owners.items() if owner is not None)
        return frozenset(path[: start - 1] for path, start in found if start is not None)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return dict(zip(self.names, paths_of(tree_unflatten(self.tree, self.shapes)), strict=True))

    @cached_property
    def _owners(self) -> dict[Path, str | None]:
        """For each array of the state for all parameters its parameter, or None if it is a number of the run.

        The parameters are numbered. For each binary digit, ``init`` is called with the parameters whose number has that
        digit, and with the others. The calls in which an array appears spell the number of its parameter. An array that
        appears in every call is a number of the run. One that appears in neither of a pair belongs to several
        parameters.
        """
        count = len(self.names)
        digits = range(max(1, (count - 1).bit_length()))
        have = [self._seen(n for n in range(count) if n >> digit & 1) for digit in digits]
        lack = [self._seen(n for n in range(count) if not n >> digit & 1) for digit in digits]
        owners: dict[Path, str | None] = {}
        for array in self._seen(range(count)):
            spelled = [(array in yes, array in no) for yes, no in zip(have, lack, strict=True)]
            if all(yes and no for yes, no in spelled):
                owners[array[0]] = None
            elif all(yes is not no for yes, no in spelled):
                owners[array[0]] = self.names[sum(yes << place for place, (yes, _) in enumerate(spelled))]
        return owners

    def _seen(self, numbers: Iterable[int]) -> set[Any]:
        state = self._state(numbers)
        leaves = jax.tree.leaves(state)
        return {(path, leaf.shape, leaf.dtype) for path, leaf in zip(paths_of(state), leaves, strict=True)}

    def _state(self, numbers: Iterable[int]) -> Any:
        kept = set(numbers)
        some = [shape if number in kept else None for number, shape in enumerate(self.shapes)]
        return jax.eval_shape(self.init, tree_unflatten(self.tree, some))


def state_layouts(init: Callable[[Any], Any]) -> Callable[[Any, tuple[str, ...], frozenset[str]], StateLayout]:
    """A function from all parameters, their names and the trainable names to a layout; cached by structure."""
    made = lru_cache(maxsize=64)(StateLayout)

    def layout(params: Any, names: tuple[str, ...], trainable: frozenset[str]) -> StateLayout:
        leaves, tree = tree_flatten(params)
        shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
        return made(init, tree, shapes, names, trainable)

    return layout


def paths_of(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Path]:
    """The path of each leaf; windows add nothing, so freezing does not change it."""
    found = tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    return [tuple(str(key) for key in path if key != THROUGH) for path, _ in found]


def state_bytes(state: Any, params: Any) -> dict[str, int]:
    """The bytes that an optimizer keeps for each parameter; 0 for a parameter that it does not know.

    Args:
        state: the state of ``optimizer(tx)`` or of an Optax transformation: ``tx.init(split(params)[0])``.
        params: the tree that is optimized.

    Raises:
        SamePathError: two leaves of the tree have one name.

    Example:
        >>> params = freeze({"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "w")
        >>> state_bytes(optax.adam(0.1).init(split(params)[0]), params)
        {'b': 16, 'w': 0}
    """
    read = survey(params)
    names = {slot.leaf: name for name in read.places for slot in read.places[name]}
    owners = {path: names[number] for number, path in enumerate(paths_of(params)) if number in names}
    found = dict.fromkeys(read.places, 0)
    for owner, size in _owned(state, owners):
        if owner in found:
            found[owner] += size
    return found


def _owned(state: Any, owners: dict[Path, str]) -> Iterator[tuple[str | None, int]]:
    """For each array of a state its parameter and its bytes."""
    leaves = jax.tree.leaves(state, is_leaf=_is_cohort)
    for path, leaf in zip(paths_of(state, _is_cohort), leaves, strict=True):
        if _is_cohort(leaf):
            yield from ((name, nbytes(array)) for name, kept in leaf.moments.items() for array in kept.values())
        else:
            ends = (path[depth:] for depth in range(len(path) + 1))
            yield next((owners[end] for end in ends if end in owners), None), nbytes(leaf)


def _is_cohort(node: object) -> bool:
    return isinstance(node, Cohort)


def _start(path: Path, of_param: Path) -> int | None:
    """The position at which the path of a parameter begins in the path of its moment.

    Of several, the last one counts, because labels of groups may have the names of parameters.
    """
    starts = range(len(path) - len(of_param), 0, -1)
    return next((start for start in starts if path[start : start + len(of_param)] == of_param), None)


def _texts_of(tree: Any) -> list[Path]:
    return [keys_of(path) for path, _ in tree_flatten_with_path(tree)[0]]
