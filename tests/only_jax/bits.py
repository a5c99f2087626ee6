"""Bytes of trees, by name."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import frostline.jax as fj


def named(tree: Any) -> dict[str, Any]:
    """Every leaf of the plain tree by its dotted name."""
    leaves = jax.tree_util.tree_leaves_with_path(fj.strip(tree))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def bits(tree: Any) -> dict[str, bytes]:
    """The raw bytes of every array."""
    arrays = (jax.Array, np.ndarray)
    return {path: np.asarray(leaf).tobytes() for path, leaf in named(tree).items() if isinstance(leaf, arrays)}


def moved(before: Any, after: Any) -> set[str]:
    """The names of all leaves that differ."""
    one, other = bits(before), bits(after)
    assert one.keys() == other.keys()
    return {path for path in one if one[path] != other[path]}
