"""A model as a function of arrays alone, so that it can be traced for any number of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.tree_util import PyTreeDef, keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from frostline.jax._arrays import ARRAYS, is_param
from frostline.jax._freezing.gradient import seen
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.survey import survey


@final
@dataclass(frozen=True)
class Leaves:
    """The leaves of a tree, arrays apart from the rest.

    Attributes:
        structure: of the tree.
        leaves: all of them.
        arrays: the numbers of those that are arrays.
    """

    structure: PyTreeDef
    leaves: list[Any]
    arrays: tuple[int, ...]

    @classmethod
    def of(cls, tree: Any) -> Leaves:
        """The leaves of a tree; arrays of NumPy are copied, as they may be written to."""
        leaves, structure = tree_flatten(tree)
        arrays = tuple(number for number, leaf in enumerate(leaves) if isinstance(leaf, ARRAYS))
        leaves = [jnp.array(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
        return cls(structure, leaves, arrays)

    @property
    def values(self) -> list[Any]:
        """The arrays."""
        return [self.leaves[number] for number in self.arrays]

    @property
    def settings(self) -> list[Any]:
        """What is no array."""
        return [leaf for number, leaf in enumerate(self.leaves) if number not in self.arrays]

    def filled(self, arrays: Sequence[Any]) -> Any:
        """The tree with other arrays, and all else as it is."""
        leaves = dict(enumerate(self.leaves)) | dict(zip(self.arrays, arrays, strict=True))
        return tree_unflatten(self.structure, leaves.values())


@final
@dataclass(frozen=True)
class Model:
    """``fn(tree, *inputs)`` as a function of arrays.

    Attributes:
        fn: the function.
        tree: the tree as `fn` sees it.
        names: of each array of the tree.
        moves: of each array of the tree, whether it trains.
        inputs: the example.
        input_names: of each array of the example.
    """

    fn: Callable[..., Any]
    tree: Leaves
    names: tuple[str, ...]
    moves: tuple[bool, ...]
    inputs: Leaves
    input_names: tuple[str, ...]

    @classmethod
    def of(cls, fn: Callable[..., Any], tree: Any, inputs: tuple[Any, ...]) -> Model:
        """The model that a function and a tree are."""
        # What is used frozen here and trains there moves here, too.
        moving = (group for group in survey(tree).arrays if not all(slot.is_still for slot in group))
        free = {slot.name: next(s.name for s in group if not s.is_still) for group in moving for slot in group}
        plain = seen(tree)
        leaves, read = Leaves.of(plain), survey(plain)
        # What is tied by a mark has several names, and is there once.
        names = {slot.leaf: slot.name for slot in reversed(read.layout.slots)}
        every = [free.get(names[number], names[number]) for number in leaves.arrays]
        moves = tuple(name in free and is_param(leaves.leaves[n]) for name, n in zip(every, leaves.arrays, strict=True))
        example = Leaves.of(inputs)
        spelled = [f"inputs{keystr(path)}" for path, _ in tree_flatten_with_path(inputs)[0]]
        return cls(fn, leaves, tuple(every), moves, example, tuple(spelled[number] for number in example.arrays))

    @cached_property
    def samples(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype of each array of the example, without the dimension of the samples."""
        return tuple(jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in self.inputs.values)

    def leaves_of(self, tree: Any) -> list[Any] | None:
        """The leaves of another tree of this structure, with marks or without; None if it has another."""
        leaves, structure = tree_flatten(strip(seen(tree)))
        return leaves if structure == self._plain_structure else None

    def differences(self, leaves: list[Any]) -> list[str]:
        """Which leaves of another tree are other arrays or other numbers than those that were traced, a line each."""
        pairs = zip(self._every_name, leaves, self.tree.leaves, strict=True)
        return [f"{name}: {_kind(given)}, not {_kind(own)}" for name, given, own in pairs if _is_other(given, own)]

    @cached_property
    def _every_name(self) -> list[str]:
        names = {slot.leaf: slot.name for slot in survey(self.tree.filled(self.tree.values)).layout.slots}
        return [names[number] for number in range(len(self.tree.leaves))]

    @cached_property
    def _plain_structure(self) -> PyTreeDef:
        return jax.tree.structure(strip(tree_unflatten(self.tree.structure, self.tree.leaves)))

    def traced(self, samples: int) -> tuple[ClosedJaxpr, PyTreeDef]:
        """The function of the arrays of the tree and of the inputs, for a number of samples; and what it returns."""

        def of_arrays(arrays: list[Any], inputs: list[Any]) -> Any:
            return self.fn(self.tree.filled(arrays), *self.inputs.filled(inputs))

        batch = [jax.ShapeDtypeStruct((samples, *each.shape), each.dtype) for each in self.samples]
        closed, returned = jax.make_jaxpr(of_arrays, return_shape=True)(self.tree.values, batch)
        return closed, jax.tree.structure(returned)


def _is_other(given: Any, own: Any) -> bool:
    if isinstance(own, ARRAYS):
        return not isinstance(given, ARRAYS) or (given.shape, _dtype(given)) != (own.shape, own.dtype)
    # A number that was written into the trace; a mode is set by freezing, and inside of jit a number is traced.
    return type(own) is type(given) and isinstance(own, int | float | str) and own is not True and own != given


def _dtype(array: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(array.dtype) if isinstance(array, np.ndarray) else array.dtype


def _kind(leaf: Any) -> str:
    return f"{_dtype(leaf)} {leaf.shape}" if isinstance(leaf, ARRAYS) else repr(leaf)
