"""Errors about a selector, alone or in a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from frostline._core.errors.base import ExpressionError, FrostlineError, counted, listed


class SelectorError(ExpressionError, ValueError):
    """A selector that cannot be read."""

    found: tuple[str, ...] = field(default=(), init=False)


class NoMatchError(FrostlineError, LookupError):
    """A selector, or one leaf of an expression, that matches nothing.

    Attributes:
        selector: the leaf as its author wrote it.
        count: how many parameters there are.
        closest: what there is instead, best first.
        note: why nothing matches, where that is known.
        heading: what `closest` lists.
    """

    selector: str
    count: int
    closest: tuple[str, ...] = ()
    note: str = ""
    heading: str = "Closest paths"

    def _lines(self) -> Iterable[str]:
        yield f"{self.selector} matches none of the {counted(self.count, 'parameter')}."
        if self.note:
            yield self.note
        if self.closest:
            yield f"{self.heading}:"
            yield from listed(self.closest, 10)
        yield "Fix the pattern, or pass allow_empty=True if matching nothing is what you want."


class CountError(FrostlineError, ValueError):
    """Another number of parameters than `expect` says.

    Attributes:
        selectors: the selectors as their author wrote them.
        expected: the number that was expected.
        paths: the parameters that are selected, in model order.
    """

    selectors: str
    expected: int
    paths: tuple[str, ...]

    @property
    def found(self) -> int:
        """How many parameters are selected."""
        return len(self.paths)

    def _lines(self) -> Iterable[str]:
        yield f"{self.selectors} selects {counted(self.found, 'parameter')}, but expect={self.expected}."
        if self.paths:
            yield "Selected:"
            yield from listed(self.paths, 5)
        yield f"Fix the selectors, or pass expect={self.found} if that is what you want."


class TiedError(FrostlineError, ValueError):
    """One tensor with two names, of which one is chosen and the other refused.

    Attributes:
        names: the chosen name and the refused one.
        selectors: the selector that chose, and the one that refused.
    """

    names: tuple[str, str]
    selectors: tuple[str, str]

    def _lines(self) -> Iterable[str]:
        chosen, refused = self.names
        return [
            f"{chosen!r} and {refused!r} are two names of one tensor, and it cannot be both frozen and trainable.",
            f"  {chosen!r} is chosen by {self.selectors[0]}",
            f"  {refused!r} is refused by {self.selectors[1]}",
            f"Choose both names, or refuse both: add {'!' + chosen!r} as the last selector to leave the tensor out.",
        ]


class UnsupportedError(ExpressionError, NotImplementedError):
    """What frostline cannot do, said instead of doing something else."""

    found: tuple[str, ...] = field(default=(), init=False)
