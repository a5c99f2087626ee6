"""Objects of Keras in a tree: JAX sees nothing in them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from frostline._core.errors import UnsupportedError


def refuse_keras(leaves: Iterable[Any]) -> None:
    """Refuses models, layers and variables of Keras, whose parameters would not be among those of the tree.

    Raises:
        UnsupportedError: there is one among the leaves.
    """
    if "keras" not in sys.modules:
        return
    for leaf in leaves:
        if any(kind.__module__.partition(".")[0] == "keras" for kind in type(leaf).__mro__):
            raise UnsupportedError(
                type(leaf).__name__,
                "is an object of Keras and not a pytree: JAX sees no parameters in it.",
                "Take the values: params = {v.path: v.value for v in model.trainable_variables}, and call "
                "model.stateless_call([params[v.path] for v in model.trainable_variables], rest, x).",
            )
