"""Freezing for Flax NNX: the functions of ``frostline.jax`` for modules that change in place.

Paths are those of NNX with dots, ``layers.0.kernel``; parameters are ``nnx.Param`` variables with floating arrays.

- ``Frozen(layer)`` is a frozen use, at construction.
- ``freeze``, ``thaw`` and ``follow`` change a model in place and return it. They note the frozen set at modules, not at
  variables: variables keep their type and metadata, and ``nnx.update`` with an older checkpoint thaws nothing. Held
  modules stay in evaluation mode and change nothing, even after ``model.train()``. The notes are kept by split, merge,
  jit, copies and pickle. Freeze outside of jit.
- ``trainable`` is the filter for ``nnx.split``, ``nnx.Optimizer(wrt=...)`` and ``nnx.DiffState``. With it, frozen
  parameters have no gradient and no optimizer state. Create it again after freezing or thawing.

Example:
    >>> import numpy as np
    >>> model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 1, rngs=nnx.Rngs(1)))
    >>> model = freeze(model, "**", "!layers[-1].bias")
    >>> gradient = nnx.grad(lambda model, x: model(x).sum(), argnums=nnx.DiffState(0, trainable(model)))
    >>> nnx.to_flat_state(gradient(model, np.ones(2))).paths
    (('layers', 1, 'bias'),)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flax import nnx
from flax.nnx.filterlib import PathIn

import frostline.jax as fj
from frostline._core.errors import NothingTrainableError
from frostline._core.plan import Plan
from frostline.integrations._nnx_reading import Reading
from frostline.integrations._nnx_use import Frozen as Frozen
from frostline.jax._freezing.survey import survey
from frostline.jax._inspection.guard import Guard

__all__ = ["Frozen", "follow", "freeze", "guard", "plan", "thaw", "trainable"]


def freeze(model: Any, *selectors: Any, expect: int | None = None, allow_empty: bool = False) -> Any:
    """Freezes parameters of a model, in place, and returns it.

    Args:
        model: an ``nnx.Module``.
        selectors: selectors as in ``frostline.jax.freeze``, and modules and variables of the model.
        expect: the number of parameters that must be selected.
        allow_empty: whether a selector may match nothing.

    Raises:
        LayerError: `model` is not a module.
        UnsupportedError: the model is being traced, or rows of a parameter are selected.
        NoMatchError, CountError, TiedError, SelectorError, SamePathError: as in ``frostline.jax.freeze``.

    Example:
        >>> model = freeze(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "bias")
        >>> plan(model).frozen
        frozenset({'bias'})
    """
    read = Reading.to_change("freeze", model)
    return read.note(fj.freeze(read.tree, *read.named(selectors), expect=expect, allow_empty=allow_empty))


def thaw(model: Any, *selectors: Any, expect: int | None = None, allow_empty: bool = False) -> Any:
    """Thaws parameters of a model, in place, and returns it; frozen uses do not change.

    Raises:
        PinnedError: a selector names only frozen uses.
        LayerError, UnsupportedError, NoMatchError, CountError, TiedError, SelectorError, SamePathError: as freezing.

    Example:
        >>> model = freeze(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        >>> plan(thaw(model, "bias")).frozen
        frozenset({'kernel'})
    """
    read = Reading.to_change("thaw", model)
    return read.note(fj.thaw(read.tree, *read.named(selectors), expect=expect, allow_empty=allow_empty))


def follow(model: Any, plan: Plan) -> Any:
    """Applies a plan to a model, in place, and returns it.

    Raises:
        PlanMismatchError: the plan has other paths than the model.
        PinnedError: the plan trains a frozen use.
        LayerError, UnsupportedError: as in :func:`freeze`.

    Example:
        >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        >>> before = plan(model)
        >>> plan(follow(freeze(model), before)) == before
        True
    """
    read = Reading.to_change("follow", model)
    return read.note(fj.follow(read.tree, plan))


def plan(model: Any) -> Plan:
    """Returns the plan of a model, or of a container of models.

    Example:
        >>> plan(freeze(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "bias"))
        Plan(frozen=1, trainable=1)
    """
    return fj.plan(Reading.of(model).tree)


def trainable(model: Any) -> PathIn:
    """Returns a filter for the trainable parameters: those with at least one use that is not frozen.

    It contains the first path of each of these variables in NNX, even if that is in a frozen use. It is hashable.

    Args:
        model: the module to split or differentiate; put models that share parameters into an ``nnx.List``.

    Raises:
        NothingTrainableError: every parameter is frozen.

    Example:
        >>> layer = nnx.Linear(2, 3, use_bias=False, rngs=nnx.Rngs(0))
        >>> trainable(nnx.List([Frozen(layer), layer]))
        PathIn((0, 'kernel'))
    """
    read = Reading.of(model)
    moving = read.moving(read.tree)
    if not moving:
        tree = survey(read.tree)
        raise NothingTrainableError("trainable(model)", len(tree.places), len(tree.pinned), len(read.variables))
    found = nnx.to_flat_state(nnx.state(model, nnx.Param, graph=True))
    return PathIn(*(path for path, variable in found if id(variable) in moving))


@contextmanager
def guard(model: Any, *, copy: bool = False) -> Iterator[Guard]:
    """Proves that nothing frozen moves inside the ``with`` block; see ``frostline.jax.guard``.

    Raises:
        MovedError: something moved; it is raised on exit. An exception from inside the block is passed on unchanged.

    Example:
        >>> model = freeze(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "bias")
        >>> with guard(model) as watching:
        ...     model.kernel[...] += 1
        >>> watching.paths
        frozenset({'bias'})
    """
    with fj.guard(Reading.untraced("guard", model).values(), copy=copy) as watching:
        yield watching
        watching.verify(Reading.of(model).values())
