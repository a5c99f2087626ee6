"""Levels of trees as bytes, for exported functions."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import export
from jax.tree_util import tree_unflatten

from frostline.jax._uses.window import Level


def to_bytes(level: Level) -> bytes:
    """Returns a level as bytes. The class of its root must be registered with ``jax.export``.

    JAX writes structures only as those of the arguments of an exported function, so this exports one that does nothing.

    Example:
        >>> from_bytes(to_bytes(Level(jax.tree.structure({"w": 1, "b": 2}))))
        PyTreeDef({'b': *, 'w': *})
    """
    if level.structure is None:
        return b""
    tree = tree_unflatten(level.structure, [np.zeros(())] * level.structure.num_leaves)
    return bytes(export.export(jax.jit(lambda _: None))(tree).serialize())


def from_bytes(data: bytes | bytearray) -> Level:
    """The level that was written."""
    if not data:
        return Level(None)
    arguments: Any = export.deserialize(bytearray(data)).in_tree
    return Level(arguments.children()[0].children()[0])
