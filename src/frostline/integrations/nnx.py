"""Freezing for Flax NNX: the words of ``frostline.jax``, on modules that are written to in place.

Paths are those of NNX with dots, ``layers.0.kernel``; parameters are the ``nnx.Param`` of floating arrays.

- ``Frozen(layer)`` is a frozen use, at construction.
- ``freeze``, ``thaw`` and ``follow`` change the model that they are given, and return it. What is frozen is noted at
  the module that owns it, not at the variable: variables keep their type and metadata, and ``nnx.update`` with an
  older checkpoint thaws nothing. Modules that are frozen whole are held: they are in evaluation mode and move nothing,
  whatever ``model.train()`` says. The notes go through split, merge, jit, copies and pickle. Freeze outside of jit.
- ``trainable`` is the one filter for ``nnx.split``, ``nnx.Optimizer(wrt=...)`` and ``nnx.DiffState``. With it, frozen
  parameters have no gradient and no optimizer state. Make it again after freezing or thawing.

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
    """Freezes more of a model, in place, and returns it.

    Args:
        model: an ``nnx.Module``.
        selectors: as in ``frostline.jax.freeze``; modules and variables of the model, too.
        expect: how many parameters must be selected.
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
    """Freezes less of a model, in place, and returns it; frozen uses are left alone.

    Raises:
        PinnedError: a selector names nothing but frozen uses.
        LayerError, UnsupportedError, NoMatchError, CountError, TiedError, SelectorError, SamePathError: as freezing.

    Example:
        >>> model = freeze(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
        >>> plan(thaw(model, "bias")).frozen
        frozenset({'kernel'})
    """
    read = Reading.to_change("thaw", model)
    return read.note(fj.thaw(read.tree, *read.named(selectors), expect=expect, allow_empty=allow_empty))


def follow(model: Any, plan: Plan) -> Any:
    """Freezes a model as a plan says, in place, and returns it.

    Raises:
        PlanMismatchError: the plan speaks of other paths than the model has.
        PinnedError: the plan wants to train a frozen use.
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
    """What is frozen in a model, or in a container of models, as a value.

    Example:
        >>> plan(freeze(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), "bias"))
        Plan(frozen=1, trainable=1)
    """
    return fj.plan(Reading.of(model).tree)


def trainable(model: Any) -> PathIn:
    """The parameters that training moves, as a filter: those with at least one use that is not frozen.

    It names the path at which NNX meets each of these variables first, be it in a frozen use. It is hashable.

    Args:
        model: what will be split or differentiated: a module; models that share some go into an ``nnx.List``.

    Raises:
        NothingTrainableError: nothing is left to train.

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
        MovedError: on exit, when something moved. An exception from inside the block comes out unchanged instead.

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
