"""The moments of a tree in the state of an Optax transformation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, final

import jax
from jax.tree_util import PyTreeDef, register_dataclass, tree_flatten

from frostline.jax._arrays import nbytes
from frostline.jax._freezing.survey import survey
from frostline.jax._training.state_arrays import Path, StateArray, StateReader, abstract, flat

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


@final
class StateLayout:
    """The arrays that a transformation keeps for a tree with a trainable set.

    They are those of a state that `init` made. If none was seen, one is made without arrays.

    Args:
        reader: reads the states of the transformation for this tree.
        trainable: the names of the parameters that train.
    """

    def __init__(self, reader: StateReader, trainable: frozenset[str]) -> None:
        self._reader, self._trainable = reader, trainable
        self._shapes: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters."""
        return self._reader.names

    def note(self, state: Any) -> None:
        """Notes a state that `init` made for the trainable parameters."""
        if self._shapes is None:
            self._shapes = jax.tree.map(abstract, state)

    @property
    def shapes(self) -> Any:
        """The shapes of the state for the trainable parameters."""
        if self._shapes is None:
            self._shapes = self._reader.state(self._trainable)
        return self._shapes

    @cached_property
    def structure(self) -> PyTreeDef:
        """The structure of that state."""
        return jax.tree.structure(self.shapes)

    def other_shapes(self, state: Any) -> Iterator[tuple[StateArray, tuple[int, ...]]]:
        """The arrays of a state of this structure that have another shape than a fresh one would have; with it."""
        fresh, leaves = jax.tree.leaves(self.shapes), jax.tree.leaves(state)
        if [leaf.shape for leaf in fresh] != [jax.numpy.shape(leaf) for leaf in leaves]:
            pairs = zip(self.arrays, map(jax.numpy.shape, leaves), strict=True)
            yield from ((array, shape) for array, shape in pairs if array.shape.shape != shape)

    @cached_property
    def arrays(self) -> tuple[StateArray, ...]:
        """The arrays of the state for the trainable parameters, in the order of JAX."""
        return self._reader.arrays(self.shapes, is_fresh=True)

    def arrays_of(self, state: Any) -> tuple[StateArray, ...]:
        """The arrays of a state for another trainable set, in the order of JAX."""
        _ = self.arrays  # The reader learns from a fresh state how the transformation names its arrays.
        return self._reader.arrays(state, is_fresh=False)

    @property
    def whole(self) -> dict[Path, StateArray]:
        """The arrays of the state for all parameters, except those that several parameters share."""
        return self._reader.whole

    @property
    def shared(self) -> tuple[Path, ...]:
        """The arrays that belong to several parameters at once."""
        _ = self.arrays
        return self._reader.shared

    @cached_property
    def has_counts(self) -> bool:
        """Whether the state has counts, by which cohorts differ."""
        return any(array.beside_moments for array in self.arrays)


def state_layouts(init: Callable[[Any], Any]) -> Callable[[Any, tuple[str, ...], frozenset[str]], StateLayout]:
    """A function from all parameters, their names and the trainable names to a layout; cached by structure."""
    readers, layouts = lru_cache(maxsize=8)(StateReader), lru_cache(maxsize=64)(StateLayout)

    def layout(params: Any, names: tuple[str, ...], trainable: frozenset[str]) -> StateLayout:
        leaves, tree = tree_flatten(params)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        return layouts(readers(init, tree, shapes, names), trainable)

    return layout


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
    owners = {path: names[number] for number, (path, _, _) in enumerate(flat(params)) if number in names}
    found = dict.fromkeys(read.places, 0)
    for owner, size in _owned(state, owners):
        if owner in found:
            found[owner] += size
    return found


def _owned(state: Any, owners: dict[Path, str]) -> Iterator[tuple[str | None, int]]:
    """For each array of a state its parameter and its bytes."""
    for path, _, leaf in flat(state, is_leaf=_is_cohort):
        if _is_cohort(leaf):
            yield from ((name, nbytes(array)) for name, kept in leaf.moments.items() for array in kept.values())
        else:
            ends = (path[depth:] for depth in range(len(path) + 1))
            yield next((owners[end] for end in ends if end in owners), None), nbytes(leaf)


def _is_cohort(node: object) -> bool:
    return isinstance(node, Cohort)
