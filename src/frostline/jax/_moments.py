"""Which arrays in the state of an Optax transformation belong to which parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import jax
from jax.tree_util import PyTreeDef, tree_flatten, tree_flatten_with_path, tree_unflatten

from frostline.jax._arrays import nbytes
from frostline.jax._survey import survey
from frostline.jax._window import THROUGH

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One array of a state.

    Attributes:
        path: where it is; windows add nothing.
        owner: the name of the parameter whose moment it is; None for a number.
        beside_moments: whether it is a number of the same node as moments are: the count of their steps.
    """

    path: Path
    owner: str | None
    beside_moments: bool


@dataclass(frozen=True)
class Chart:
    """What a transformation keeps for a tree, found by asking its ``init``, as no rule on names would hold for all.

    Attributes:
        init: of the transformation.
        tree: the structure of all parameters.
        shapes: what they are.
        names: their names.
        trainable: those that train.
    """

    init: Callable[[Any], Any]
    tree: PyTreeDef
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    names: tuple[str, ...]
    trainable: frozenset[str]

    @cached_property
    def structure(self) -> PyTreeDef:
        """The structure of the state for what trains."""
        return jax.tree.structure(self._of_trainable)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The arrays of the state for what trains, as JAX counts them."""
        owners, paths = (
            self._owners,
            dict(zip(self.names, paths_of(tree_unflatten(self.tree, self.shapes)), strict=True)),
        )
        nodes = {_node(path, paths[owner]) for path, owner in owners.items() if owner is not None}
        return tuple(
            Entry(path, owners.get(path), owners.get(path) is None and path[:-1] in nodes)
            for path in paths_of(self._of_trainable)
        )

    @cached_property
    def shared(self) -> tuple[Path, ...]:
        """The arrays that go with several parameters at once."""
        return tuple(path for path in paths_of(self._state(range(len(self.names)))) if path not in self._owners)

    @cached_property
    def _of_trainable(self) -> Any:
        return self._state(number for number, name in enumerate(self.names) if name in self.trainable)

    @cached_property
    def _owners(self) -> dict[Path, str | None]:
        """For each array of a state for all parameters the one that it goes with, or None if it is always there.

        The parameters are numbered, and for each binary digit ``init`` sees those that have it and those that do not:
        where an array is left spells the number of its parameter. An array that both see, each time, is a number of
        the run; one that neither sees is of several parameters at once.
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


def charts(init: Callable[[Any], Any]) -> Callable[[Any, tuple[str, ...], frozenset[str]], Chart]:
    """From all parameters, their names, and those of what trains to a chart, made once for each structure."""
    made = lru_cache(maxsize=64)(Chart)

    def chart(params: Any, names: tuple[str, ...], trainable: frozenset[str]) -> Chart:
        leaves, tree = tree_flatten(params)
        shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
        return made(init, tree, shapes, names, trainable)

    return chart


def paths_of(tree: Any) -> list[Path]:
    """The path of each leaf; windows add nothing, so freezing does not change it."""
    return [tuple(str(key) for key in path if key != THROUGH) for path, _ in tree_flatten_with_path(tree)[0]]


def state_bytes(state: Any, params: Any) -> dict[str, int]:
    """The bytes that an optimizer keeps for each parameter; 0 for one that it does not know.

    Args:
        state: of ``optimizer(tx)``, or of an Optax transformation itself: ``tx.init(split(params)[0])``.
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
    for path, leaf in zip(paths_of(state), jax.tree.leaves(state), strict=True):
        ends = (path[depth:] for depth in range(len(path) + 1))
        owner = next((owners[end] for end in ends if end in owners), None)
        if owner is not None:
            found[owner] += nbytes(leaf)
    return found


def _node(path: Path, of_param: Path) -> Path | None:
    """The node with moments of a parameter among its children: it has a child below which the path of the parameter is.

    Of several places where that path is, the last is meant: labels of groups may be called like parameters.
    """
    starts = range(len(path) - len(of_param), 0, -1)
    return next((path[: start - 1] for start in starts if path[start : start + len(of_param)] == of_param), None)
