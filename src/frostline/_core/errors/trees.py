"""What can be wrong with a tree, or with a pair of them."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import FrostlineError, counted


class LayerError(FrostlineError, TypeError):
    """What is no layer, held or called as one.

    Attributes:
        expression: what was written.
        problem: what is wrong with it.
        fix: what to write instead.
    """

    def __init__(self, expression: str, problem: str, fix: str) -> None:
        super().__init__(expression, problem, fix)
        self.expression, self.problem, self.fix = expression, problem, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [f"{self.expression} {self.problem}", self.fix]


class NothingTrainableError(FrostlineError, ValueError):
    """Training with nothing left to train.

    Attributes:
        expression: what was asked for.
        params: how many parameters the tree has.
        pinned: how many of them are inside frozen uses.
        leaves: how many leaves there are in all.
    """

    def __init__(self, expression: str, params: int, pinned: int, leaves: int) -> None:
        super().__init__(expression, params, pinned, leaves)
        self.expression, self.params, self.pinned, self.leaves = expression, params, pinned, leaves

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.expression} has nothing to train."
        if not self.params:
            yield f"None of the {counted(self.leaves, 'leaf').replace('leafs', 'leaves')} is a floating array."
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

    def __init__(self, path: str, spelled: tuple[str, str]) -> None:
        super().__init__(path, spelled)
        self.path, self.spelled = path, spelled

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.path!r} is the name of 2 leaves, and a plan could not tell them apart."
        yield "They are:"
        yield from (f"  {spelling}" for spelling in self.spelled)
        yield "Rename a key, for example without the dot, or give the node keys of its own: register_pytree_with_keys."


class StructureError(FrostlineError, ValueError):
    """A tree of another structure than the one it goes with.

    Attributes:
        expression: what was asked for.
        problem: what is wrong, as a sentence.
        found: the two structures, or what else there was.
        fix: what to do about it.
    """

    def __init__(self, expression: str, problem: str, found: tuple[str, ...], fix: str) -> None:
        super().__init__(expression, problem, found, fix)
        self.expression, self.problem, self.found, self.fix = expression, problem, found, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"{self.expression} {self.problem}"
        yield from (f"  {found}" for found in self.found)
        yield self.fix


class UnprovenError(FrostlineError, RuntimeError):
    """A guard that was never shown the tree after the steps.

    Attributes:
        watched: how many arrays it watched.
    """

    def __init__(self, watched: int) -> None:
        super().__init__(watched)
        self.watched = watched

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"guard(tree) watched {counted(self.watched, 'frozen array')} and was left without a look at any."
        yield "In JAX a step makes a new tree, so the guard must be shown it."
        yield "Show it before the block ends: with guard(tree) as watching: ...; watching.verify(tree)."
