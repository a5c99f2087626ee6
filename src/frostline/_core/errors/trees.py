"""Errors about a layer, a tree, or a pair of trees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from frostline._core.errors.base import ExpressionError, FrostlineError, counted


class LayerError(ExpressionError, TypeError):
    """Something that is not a layer, held or called as one."""

    found: tuple[str, ...] = field(default=(), init=False)


class NothingTrainableError(FrostlineError, ValueError):
    """Training with nothing left to train.

    Attributes:
        expression: what was asked for.
        params: how many parameters the tree has.
        pinned: how many of them are inside frozen uses.
        leaves: how many leaves there are in all.
    """

    expression: str
    params: int
    pinned: int
    leaves: int

    def _lines(self) -> Iterable[str]:
        yield f"{self.expression} has nothing to train."
        if not self.params:
            yield f"None of the {counted(self.leaves, 'leaf', 'leaves')} is a floating array."
            yield "Hand it the model or its parameters as the first argument."
            return
        all_of_them = f"All {self.params} parameters are" if self.params > 1 else "The only parameter is"
        yield f"{all_of_them} frozen, {self.pinned} of them inside frozen uses."
        if self.pinned == self.params:
            yield "Build the model with layer in place of Frozen(layer), where it is to be trained."
        else:
            yield 'Thaw what is to be trained: tree = thaw(tree, "head").'


class SamePathError(FrostlineError, ValueError):
    """Two leaves of a tree with one name.

    Attributes:
        path: the name.
        spelled: how a pattern would spell each of the two.
    """

    path: str
    spelled: tuple[str, str]

    def _lines(self) -> Iterable[str]:
        yield f"{self.path!r} is the name of 2 leaves, and a plan could not distinguish them."
        yield "They are:"
        yield from (f"  {spelling}" for spelling in self.spelled)
        yield "Rename a key, for example without the dot, or give the node keys of its own: register_pytree_with_keys."


class StructureError(ExpressionError, ValueError):
    """A tree of another structure than the one it goes with."""


class UnprovenError(FrostlineError, RuntimeError):
    """A guard that was never shown the tree after the steps.

    Attributes:
        watched: how many arrays it watched.
    """

    watched: int

    def _lines(self) -> Iterable[str]:
        yield f"guard(tree) watched {counted(self.watched, 'frozen array')} and was left without a look at any."
        yield "In JAX a step makes a new tree, so the guard must be shown it."
        yield "Show it before the block ends: with guard(tree) as watching: ...; watching.verify(tree)."
