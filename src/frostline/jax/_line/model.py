"""A model as a function of arrays alone, so that it can be traced for any number of samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.tree_util import PyTreeDef, keystr, tree_flatten_with_path

from frostline._core.errors import LineError
from frostline.jax._arrays import ARRAYS, is_param
from frostline.jax._freezing.gradient import seen
from frostline.jax._freezing.marked import strip
from frostline.jax._freezing.survey import survey
from frostline.jax._jaxpr.leaves import Leaves

# The calls, as errors show them.
CALL, BELOW, ABOVE = "frostline(fn, tree, *example)", "line.below(*inputs)", "line.above(tree, *boundary)"


@final
@dataclass(frozen=True)
class Model:
    """``fn(tree, *inputs)`` as a function of arrays.

    Attributes:
        fn: the function.
        tree: the tree as `fn` gets it.
        names: the name of each array of the tree.
        moves: for each array of the tree, whether it trains.
        inputs: the example.
        input_names: the name of each array of the example.
    """

    fn: Callable[..., Any]
    tree: Leaves
    names: tuple[str, ...]
    moves: tuple[bool, ...]
    inputs: Leaves
    input_names: tuple[str, ...]

    @classmethod
    def of(cls, fn: Callable[..., Any], tree: Any, inputs: tuple[Any, ...]) -> Model:
        """The model of a function and a tree."""
        # An array that is frozen here and trains elsewhere in the tree moves here, too.
        moving = (group for group in survey(tree).arrays if not all(slot.is_still for slot in group))
        free = {slot.name: next(s.name for s in group if not s.is_still) for group in moving for slot in group}
        plain = seen(tree)
        leaves, read = Leaves.of(plain), survey(plain)
        # An array that a mark ties has several names, and is there once.
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

    def traced(self, samples: int) -> tuple[ClosedJaxpr, PyTreeDef]:
        """The function of the arrays of the tree and of the inputs, with the structure of its result."""

        def of_arrays(arrays: list[Any], inputs: list[Any]) -> Any:
            return self.fn(self.tree.filled(arrays), *self.inputs.filled(inputs))

        batch = [jax.ShapeDtypeStruct((samples, *each.shape), each.dtype) for each in self.samples]
        closed, returned = jax.make_jaxpr(of_arrays, return_shape=True)(self.tree.values, batch)
        return closed, jax.tree.structure(returned)

    def arrays_of(self, tree: Any) -> list[Any]:
        """The arrays of another tree, with marks or without.

        Raises:
            LineError: it has another structure, arrays of other shapes or dtypes, or other numbers.
        """
        leaves, structure = jax.tree.flatten(strip(seen(tree)))
        fix = f"Pass that tree, after any number of steps, or draw another line: {CALL}."
        if structure != self._structure:
            raise LineError(ABOVE, "got a tree of another structure than the tree of the line.", (), fix)
        pairs = zip(self._leaf_names, leaves, self.tree.leaves, strict=True)
        other = tuple(f"{name}: {_kind(given)}, not {_kind(own)}" for name, given, own in pairs if _differ(given, own))
        if other:
            problem = f"got a tree that differs from the tree of the line in {len(other)} of {len(leaves)} leaves."
            raise LineError(ABOVE, problem, other, fix)
        return [jnp.asarray(leaves[number]) for number in self.tree.arrays]

    @cached_property
    def _structure(self) -> PyTreeDef:
        return jax.tree.structure(strip(self.tree.filled(self.tree.values)))

    @cached_property
    def _leaf_names(self) -> list[str]:
        names = {slot.leaf: slot.name for slot in survey(self.tree.filled(self.tree.values)).layout.slots}
        return [names[number] for number in range(len(self.tree.leaves))]


def _differ(given: Any, own: Any) -> bool:
    if isinstance(own, ARRAYS):
        return not isinstance(given, ARRAYS) or (given.shape, _dtype(given)) != (own.shape, own.dtype)
    # A number was written into the trace. Freezing sets a mode, and inside jit a number is traced: both may differ.
    return type(own) is type(given) and isinstance(own, int | float | str) and own is not True and own != given


def _dtype(array: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(array.dtype) if isinstance(array, np.ndarray) else array.dtype


def _kind(leaf: Any) -> str:
    return f"{_dtype(leaf)} {leaf.shape}" if isinstance(leaf, ARRAYS) else repr(leaf)
