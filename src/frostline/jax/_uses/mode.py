"""Evaluation mode of trees that hold their mode as data: a bool leaf called ``inference``, as Equinox has it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from frostline.jax._arrays import ARRAYS

MODE = "inference"


def in_evaluation(tree: Any) -> Any:
    """The tree with every mode leaf set to true; the same object if there is none."""
    if not any(_may_be_off(leaf) for leaf in jax.tree.leaves(tree)):
        return tree
    return jax.tree_util.tree_map_with_path(lambda path, leaf: set_mode(_last(path), leaf), tree)


def set_mode(key: str, leaf: Any) -> Any:
    """The leaf at this key, or true if the leaf is a mode."""
    return True if key == MODE and _may_be_off(leaf) else leaf


def _may_be_off(leaf: Any) -> bool:
    # In ``jit``, and in its outputs, a bool is an array without dimensions.
    return leaf is False or (isinstance(leaf, ARRAYS) and leaf.shape == () and leaf.dtype == np.bool_)


def _last(path: tuple[Any, ...]) -> str:
    return getattr(path[-1], "name", getattr(path[-1], "key", "")) if path else ""
