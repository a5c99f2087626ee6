"""The leaves of a tree, with its arrays apart, so that a function of the tree becomes one of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef, tree_flatten, tree_unflatten

from frostline.jax._arrays import ARRAYS


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array."""
    return isinstance(leaf, ARRAYS)


@final
@dataclass(frozen=True)
class Leaves:
    """The leaves of a tree, some of which are inputs of a trace. A function may read the others while it is traced.

    Attributes:
        structure: the structure of the tree.
        leaves: all leaves.
        arrays: the numbers of the leaves that are inputs.
    """

    structure: PyTreeDef
    leaves: list[Any]
    arrays: tuple[int, ...]

    @classmethod
    def of(cls, tree: Any, is_input: Callable[[Any], bool] = is_array) -> Leaves:
        """The leaves of a tree. NumPy arrays that are inputs are copied, because they can be written to."""
        leaves, structure = tree_flatten(tree)
        arrays = tuple(number for number, leaf in enumerate(leaves) if is_input(leaf))
        for number in arrays:
            if isinstance(leaves[number], np.ndarray):
                leaves[number] = jnp.array(leaves[number])
        return cls(structure, leaves, arrays)

    @property
    def values(self) -> list[Any]:
        """The inputs."""
        return [self.leaves[number] for number in self.arrays]

    @property
    def settings(self) -> list[Any]:
        """The leaves that are not inputs."""
        return [leaf for number, leaf in enumerate(self.leaves) if number not in self.arrays]

    def filled(self, arrays: Sequence[Any]) -> Any:
        """The tree with other inputs."""
        leaves = dict(enumerate(self.leaves)) | dict(zip(self.arrays, arrays, strict=True))
        return tree_unflatten(self.structure, leaves.values())
