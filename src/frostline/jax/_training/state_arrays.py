"""The arrays in the states of an Optax transformation: which array belongs to which parameter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple, final

import jax
import optax
from jax.tree_util import PyTreeDef, tree_flatten_with_path, tree_unflatten

from frostline.jax._uses.layout import keys_of
from frostline.jax._uses.window import THROUGH

Path = tuple[str, ...]


class StateArray(NamedTuple):
    """One array of a state.

    Attributes:
        path: its place; windows add nothing.
        key: the path as one text.
        keys: the path as JAX has it.
        spot: of a moment, its parameter, and where the path of the parameter is in its own; None for a number.
        beside_moments: whether it is a number in a node with moments, that is, the count of their steps.
        is_shared: whether it belongs to several parameters at once.
        form: its shape and dtype.
    """

    path: Path
    key: str
    keys: tuple[Any, ...]
    spot: _Spot | None
    beside_moments: bool
    is_shared: bool
    form: tuple[tuple[int, ...], Any]

    @property
    def owner(self) -> str | None:
        """The name of the parameter whose moment it is; None for a number."""
        return None if self.spot is None else self.spot.owner

    @property
    def label(self) -> str:
        """Its place as text, without the name of its owner."""
        texts = keys_of(self.keys)
        if self.spot is None or not self.spot.start:
            return ".".join(texts)
        parts = (texts[: self.spot.start], texts[self.spot.end :])
        return "/".join(".".join(part) for part in parts if part)

    @property
    def shape(self) -> jax.ShapeDtypeStruct:
        """Its shape and dtype."""
        return jax.ShapeDtypeStruct(*self.form)


class _Spot(NamedTuple):
    """The place of a moment: its parameter, and where the path of the parameter begins and ends in its own."""

    owner: str
    start: int
    end: int


@final
class StateReader:
    """Reads the states that a transformation makes for the parameters of a tree.

    The path of a moment contains the path of its parameter. But no rule on names holds for all transformations: a label
    may have the name of a parameter, and an array may belong to all parameters. So what the paths say is compared with
    the states for single parameters and for a pair, which cost next to nothing. If they disagree, the states for many
    sets of parameters tell the owners.

    Args:
        init: the function of the transformation that makes a state.
        tree: the structure of all parameters.
        shapes: their shapes and dtypes.
        names: their names.
    """

    def __init__(
        self,
        init: Callable[[Any], Any],
        tree: PyTreeDef,
        shapes: tuple[Any, ...],
        names: tuple[str, ...],
    ) -> None:
        self.names = names
        self._init, self._tree = init, tree
        self._shapes = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
        paths = [path for path, _, _ in flat(tree_unflatten(tree, self._shapes))]
        self._params, self._paths = dict(zip(paths, names, strict=True)), dict(zip(names, paths, strict=True))
        self._lengths = sorted(set(map(len, paths)), reverse=True)
        self._contexts: set[Any] = set()
        self._by_sets: dict[Path, str | None] | None = None

    def state(self, names: Iterable[str]) -> Any:
        """The shapes of a state for these parameters alone."""
        kept = set(names)
        pairs = zip(self.names, self._shapes, strict=True)
        some = [shape if name in kept else None for name, shape in pairs]
        return jax.eval_shape(self._init, tree_unflatten(self._tree, some))

    @cached_property
    def whole(self) -> dict[Path, StateArray]:
        """The arrays of the state for all parameters, except those that several parameters share."""
        return {each.path: each for each in self.arrays(self.state(self.names), is_fresh=True) if not each.is_shared}

    @property
    def shared(self) -> tuple[Path, ...]:
        """The arrays of the state for all parameters that belong to several of them."""
        # Where paths name the owners, no array is shared.
        if self._by_sets is None:
            return ()
        return tuple(path for path, _, _ in flat(self.state(self.names)) if path not in self._by_sets)

    def arrays(self, state: Any, *, is_fresh: bool) -> tuple[StateArray, ...]:
        """The arrays of a state, in the order of JAX.

        Args:
            state: the state.
            is_fresh: whether it was made for some of these parameters; an older one may have others.
        """
        # A parameter without a moment leaves a hole. So a node of moments is known as one when nothing in it trains.
        every = flat(state, is_leaf=_is_hole)
        spots = {path: self._spot(path) for path, _, _ in every}
        leaves = {path: leaf for path, _, leaf in every if not _is_hole(leaf)}
        if is_fresh and self._by_sets is None and not self._agrees(leaves, spots):
            self._by_sets = self._owners_by_sets()
        if self._by_sets is not None:
            spots = {path: self._spot_of(path, owner) for path, owner in self._by_sets.items()}
        nodes = frozenset(path[: spot.start - 1] for path, spot in spots.items() if spot is not None and spot.start)
        by_sets = self._by_sets
        return tuple(
            StateArray(
                path,
                "".join(path),
                keys,
                spot := spots.get(path),
                spot is None and path[:-1] in nodes,
                by_sets is not None and path not in by_sets,
                _shape(leaf),
            )
            for path, keys, leaf in every
            if not _is_hole(leaf)
        )

    def _spot(self, path: Path) -> _Spot | None:
        """Where the path of a parameter is in the path of an array: the longest one, and of those the last.

        Labels of groups come first in a path, and may have the names of parameters.
        """
        for length in self._lengths:
            for start in range(len(path) - length, -1, -1):
                if (owner := self._params.get(path[start : start + length])) is not None:
                    return _Spot(owner, start, start + length)
        return None

    def _spot_of(self, path: Path, owner: str | None) -> _Spot | None:
        if owner is None:
            return None
        of_param = self._paths[owner]
        starts = range(len(path) - len(of_param), 0, -1)
        start = next((start for start in starts if path[start : start + len(of_param)] == of_param), 0)
        return _Spot(owner, start, start + len(of_param))

    def _agrees(self, leaves: Mapping[Path, Any], spots: Mapping[Path, _Spot | None]) -> bool:
        """Whether the owners that paths name are those of the states for few parameters.

        Moments with the same path before and after that of their parameter come from one map over the parameters. So
        for each such context the arrays of one or two parameters stand for all.
        """
        first, ends = self.names[0], {self.names[0], self.names[-1]}
        examples: dict[Any, dict[str, Path]] = {}
        for path in leaves:
            if (spot := spots[path]) is not None:
                of_context = examples.setdefault((path[: spot.start], path[spot.end :]), {})
                if spot.owner == first or not of_context:
                    of_context[spot.owner] = path
        new = examples.keys() - self._contexts
        self._contexts |= new
        singles = {name: self._moments_and_numbers({name}) for name in {first, *(n for c in new for n in examples[c])}}
        # Of a single parameter there is no pair, but a state without any. What a pair adds is of the other one.
        pair = self._moments_and_numbers(ends if len(ends) > 1 else ())
        numbers = {path: _shape(leaf) for path, leaf in leaves.items() if spots[path] is None}
        return (
            all(found[1] == numbers for found in (*singles.values(), pair))
            and all({*found[0].values()} <= {name} for name, found in singles.items())
            and {path: owner for path, owner in pair[0].items() if owner == first}
            == (singles[first][0] if len(ends) > 1 else {})
            and all(path in singles[name][0] for context in new for name, path in examples[context].items())
        )

    def _moments_and_numbers(self, names: Collection[str]) -> tuple[dict[Path, str], dict[Path, Any]]:
        """The arrays of the state for a few parameters: moments with the owners that the paths say, and numbers."""
        found = {path: leaf for path, _, leaf in flat(self.state(names))}
        spots = {path: self._spot(path) for path in found}
        moments = {path: spot.owner for path, spot in spots.items() if spot is not None}
        return moments, {path: _shape(leaf) for path, leaf in found.items() if spots[path] is None}

    def _owners_by_sets(self) -> dict[Path, str | None]:
        """For each array of the state for all parameters its parameter, or None if it is a number of the run.

        The parameters are numbered. For each binary digit, a state is made for the parameters whose number has that
        digit, and one for the others. The states in which an array appears spell the number of its parameter. An array
        that appears in every state is a number of the run. One that appears in neither of a pair belongs to several
        parameters.
        """
        digits = range(max(1, (len(self.names) - 1).bit_length()))
        numbered = list(enumerate(self.names))
        have = [self._seen(name for number, name in numbered if number >> digit & 1) for digit in digits]
        lack = [self._seen(name for number, name in numbered if not number >> digit & 1) for digit in digits]
        owners: dict[Path, str | None] = {}
        for array in self._seen(self.names):
            spelled = [(array in yes, array in no) for yes, no in zip(have, lack, strict=True)]
            if all(yes and no for yes, no in spelled):
                owners[array[0]] = None
            elif all(yes is not no for yes, no in spelled):
                owners[array[0]] = self.names[sum(yes << place for place, (yes, _) in enumerate(spelled))]
        return owners

    def _seen(self, names: Iterable[str]) -> set[Any]:
        return {(path, _shape(leaf)) for path, _, leaf in flat(self.state(names))}


def flat(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[Path, Any, Any]]:
    """The leaves of a tree in order, each with its path as text and as keys. Windows add nothing to the text."""
    found = tree_flatten_with_path(tree, is_leaf=is_leaf)[0]
    return [(tuple(str(key) for key in keys if key != THROUGH), keys, leaf) for keys, leaf in found]


def _is_hole(node: object) -> bool:
    return node is None or isinstance(node, optax.MaskedNode)


def abstract(leaf: Any) -> Any:
    """The shape and dtype of a leaf without its data."""
    aval = getattr(leaf, "aval", None)
    # A state may have plain numbers.
    return jax.typeof(leaf) if aval is None else aval


def _shape(leaf: Any) -> Any:
    aval = leaf if hasattr(leaf, "dtype") else jax.typeof(leaf)
    return aval.shape, aval.dtype
