"""The modules and parameters of a Flax NNX model, at every place outside of frozen uses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.tree_util import keystr, tree_leaves_with_path

from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.selectors import at
from frostline.integrations._nnx_constant import plain_class
from frostline.integrations._nnx_use import Frozen
from frostline.jax._arrays import is_param
from frostline.jax._uses.layout import children


def is_parameter(variable: Any) -> bool:
    """Whether training would move it."""
    return isinstance(variable, nnx.Param) and is_param(variable.get_raw_value())


def modules(node: Any, moving: frozenset[int] = frozenset(), *, whole: bool = False) -> Iterator[tuple[Any, bool]]:
    """Yields each module, and whether all of its parameters or of a module around it are frozen.

    Args:
        node: the model.
        moving: the identities of the variables that are not frozen.
        whole: whether all parameters of a module around the node are frozen.
    """
    below = children(node)
    if below is None or isinstance(node, Frozen | nnx.Variable):
        return
    whole = whole or _is_whole(node, moving)
    if isinstance(node, nnx.Module):
        yield node, whole
    for _, child in below:
        yield from modules(child, moving, whole=whole)


def parameters(model: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yields each parameter at each place: its module, its name there, and the variable."""
    for module, _ in modules(model):
        for path, leaf in tree_leaves_with_path(module, is_leaf=partial(_is_below, module)):
            if is_parameter(leaf):
                yield module, keystr(path), leaf


def named(model: Any, choice: nnx.Module | nnx.Variable[Any]) -> Selector | Any:
    """Returns a selector of the paths of a module or variable in the model, or the object itself if there are none."""
    found = tree_leaves_with_path(model, is_leaf=lambda node: node is choice)
    paths = [keystr(path, simple=True, separator=".") for path, leaf in found if leaf is choice]
    kind = plain_class(type(choice))
    return at(*paths, label=f"<{kind.__name__}>") if paths else choice


def _is_whole(node: Any, moving: frozenset[int]) -> bool:
    leaves = jax.tree.leaves(node, is_leaf=lambda below: isinstance(below, Frozen | nnx.Variable))
    own = {id(leaf) for leaf in leaves if is_parameter(leaf)}
    return bool(own) and moving.isdisjoint(own)


def _is_below(module: nnx.Module, node: Any) -> bool:
    return isinstance(node, nnx.Module | nnx.Variable) and node is not module
