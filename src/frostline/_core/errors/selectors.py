"""What can be wrong with a selector, alone or in a model."""

from __future__ import annotations

from collections.abc import Iterable

from frostline._core.errors.base import FrostlineError, counted, listed


class SelectorError(FrostlineError, ValueError):
    """A selector that cannot be read.

    Attributes:
        selector: the selector as its author wrote it.
        problem: what is wrong with it.
        fix: what to write instead.
    """

    def __init__(self, selector: str, problem: str, fix: str) -> None:
        super().__init__(selector, problem, fix)
        self.selector, self.problem, self.fix = selector, problem, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [f"{self.selector} {self.problem}", self.fix]


class NoMatchError(FrostlineError, LookupError):
    """A selector, or one leaf of an expression, that matches nothing.

    Attributes:
        selector: the leaf as its author wrote it.
        count: how many parameters there are.
        closest: what there is instead, best first.
        note: why nothing matches, where that is known.
        heading: what `closest` lists.
    """

    def __init__(
        self,
        selector: str,
        count: int,
        closest: tuple[str, ...] = (),
        note: str = "",
        heading: str = "Closest paths",
    ) -> None:
        super().__init__(selector, count, closest, note, heading)
        self.selector, self.count, self.closest = selector, count, closest
        self.note, self.heading = note, heading

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
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

    def __init__(self, selectors: str, expected: int, paths: tuple[str, ...]) -> None:
        super().__init__(selectors, expected, paths)
        self.selectors, self.expected, self.paths = selectors, expected, paths

    @property
    def found(self) -> int:
        """How many parameters are selected."""
        return len(self.paths)

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        yield f"({self.selectors}) selects {counted(self.found, 'parameter')}, but expect={self.expected}."
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

    def __init__(self, names: tuple[str, str], selectors: tuple[str, str]) -> None:
        super().__init__(names, selectors)
        self.names, self.selectors = names, selectors

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        chosen, refused = self.names
        return [
            f"{chosen!r} and {refused!r} are two names of one tensor, and it cannot be both frozen and trainable.",
            f"  {chosen!r} is chosen by {self.selectors[0]}",
            f"  {refused!r} is refused by {self.selectors[1]}",
            f"Choose both names, or refuse both: add {'!' + chosen!r} as the last selector to leave the tensor out.",
        ]


class UnsupportedError(FrostlineError, NotImplementedError):
    """What frostline cannot do, said instead of doing something else.

    Attributes:
        expression: what was asked for.
        reason: why it cannot be done.
        fix: what can be done instead.
    """

    def __init__(self, expression: str, reason: str, fix: str) -> None:
        super().__init__(expression, reason, fix)
        self.expression, self.reason, self.fix = expression, reason, fix

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [f"{self.expression} {self.reason}", self.fix]
