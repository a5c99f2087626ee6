"""Expressions of selectors: what either takes, what both take, what only the first takes, the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final


@dataclass(frozen=True, slots=True)
class Selector(ABC):
    """A choice of parameters that does not depend on a model.

    ``a | b`` selects the union, ``a & b`` the intersection, ``a - b`` the difference, and ``~a`` the complement.
    """

    # The precedence of its source code in Python: | & - ~ and calls.
    binds: ClassVar[int] = 5

    def __or__(self, other: Selector) -> Selector:
        return Union(self, other) if isinstance(other, Selector) else NotImplemented

    def __and__(self, other: Selector) -> Selector:
        return Intersection(self, other) if isinstance(other, Selector) else NotImplemented

    def __sub__(self, other: Selector) -> Selector:
        return Difference(self, other) if isinstance(other, Selector) else NotImplemented

    def __invert__(self) -> Selector:
        return Complement(self)

    @abstractmethod
    def __repr__(self) -> str: ...

    def within(self, binds: int) -> str:
        """Returns the source code, in parentheses if its precedence is below `binds`."""
        return repr(self) if self.binds >= binds else f"({self!r})"


@final
@dataclass(frozen=True, slots=True, repr=False)
class Union(Selector):
    """The union of two selectors."""

    binds: ClassVar[int] = 1
    left: Selector
    right: Selector

    def __repr__(self) -> str:
        return f"{self.left.within(1)} | {self.right.within(2)}"


@final
@dataclass(frozen=True, slots=True, repr=False)
class Intersection(Selector):
    """The intersection of two selectors."""

    binds: ClassVar[int] = 2
    left: Selector
    right: Selector

    def __repr__(self) -> str:
        return f"{self.left.within(2)} & {self.right.within(3)}"


@final
@dataclass(frozen=True, slots=True, repr=False)
class Difference(Selector):
    """The difference of two selectors."""

    binds: ClassVar[int] = 3
    left: Selector
    right: Selector

    def __repr__(self) -> str:
        return f"{self.left.within(3)} - {self.right.within(4)}"


@final
@dataclass(frozen=True, slots=True, repr=False)
class Complement(Selector):
    """The complement of a selector."""

    binds: ClassVar[int] = 4
    inner: Selector

    def __invert__(self) -> Selector:
        return self.inner

    def __repr__(self) -> str:
        return f"~{self.inner.within(4)}"
