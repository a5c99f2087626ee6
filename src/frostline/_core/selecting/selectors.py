"""Selectors as values: they compare by value, are hashable, and print as the source code that creates them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

from frostline._core.errors import SelectorError
from frostline._core.param import Param
from frostline._core.selecting.pattern import parse


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
class glob(Selector):
    """The parameters that a pattern names, and all parameters below the modules that it names.

    In ``freeze`` a plain string means the same; ``glob`` is for expressions.

    Args:
        pattern: a path as Python writes it after ``model.``, with ``*`` for one segment, ``**`` for any number of
            segments, ``{a,b}`` for alternatives, and indices and slices of lists and of numbered names.

    Raises:
        SelectorError: the pattern cannot be read.

    Example:
        >>> glob("encoder.layers[:-2]") - glob("**.bias")
        glob('encoder.layers[:-2]') - glob('**.bias')
    """

    pattern: str

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise SelectorError(f"glob({self.pattern!r})", "is not made from a string.", 'Write glob("encoder.*").')
        parse(self.pattern)

    def __repr__(self) -> str:
        return f"glob({self.pattern!r})"


@final
@dataclass(frozen=True, slots=True, repr=False)
class regex(Selector):
    r"""The parameters whose dotted names match a regular expression.

    Args:
        pattern: the expression; it must match the whole name.

    Raises:
        SelectorError: the expression cannot be read.

    Example:
        >>> regex(r"encoder\.layers\.[02468]\..*")
        regex('encoder\\.layers\\.[02468]\\..*')
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as error:
            fix = 'Write a regular expression of Python, or a pattern as glob("encoder.*").'
            raise SelectorError(f"regex({self.pattern!r})", f"is not a regular expression: {error}.", fix) from error

    def __repr__(self) -> str:
        return f"regex({self.pattern!r})"


@final
@dataclass(frozen=True, slots=True, repr=False, init=False)
class of_type(Selector):
    """All parameters at or below a module of one of these classes or of a subclass.

    Args:
        classes: the classes, one or more.

    Raises:
        SelectorError: an argument is not a class, or there is none.

    Example:
        >>> of_type(int, float)
        of_type(int, float)
    """

    classes: tuple[type, ...]

    def __init__(self, *classes: type) -> None:
        object.__setattr__(self, "classes", classes)
        wrong = [given for given in classes if not isinstance(given, type)]
        if wrong or not classes:
            problem = f"holds {len(wrong)} things that are not classes." if wrong else "names no class."
            given = ", ".join(_class_name(given) for given in classes)
            raise SelectorError(f"of_type({given})", problem, "Write the class itself: of_type(LayerNorm).")

    def __repr__(self) -> str:
        return f"of_type({', '.join(_class_name(owner) for owner in self.classes)})"


def _class_name(owner: object) -> str:
    return owner.__qualname__ if isinstance(owner, type) else repr(owner)


@final
@dataclass(frozen=True, slots=True, repr=False)
class where(Selector):
    """The parameters for which a predicate is true.

    Args:
        predicate: takes a `Param` (its `path`, `shape`, `size`, `dtype`, ...) and returns whether to select it.

    Raises:
        SelectorError: the predicate cannot be called.

    Example:
        >>> def is_vector(param):
        ...     return len(param.shape) == 1
        >>> where(is_vector)
        where(is_vector)
    """

    predicate: Callable[[Param], object]

    def __post_init__(self) -> None:
        if not callable(self.predicate):
            problem = "is not made from something to call."
            raise SelectorError(f"where({self.predicate!r})", problem, "Write where(lambda p: p.size > 1e6).")

    def __repr__(self) -> str:
        return f"where({getattr(self.predicate, '__name__', None) or repr(self.predicate)})"


@final
@dataclass(frozen=True, slots=True, repr=False, init=False)
class at(Selector):
    """The modules and parameters with these dotted paths; an object of a model becomes this selector.

    Args:
        paths: all paths of the object.
        label: the object as its author would write it.

    Example:
        >>> at("encoder.layers.0", label="model.encoder.layers[0]")
        model.encoder.layers[0]
    """

    paths: tuple[str, ...]
    label: str

    def __init__(self, *paths: str, label: str = "") -> None:
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "label", label)

    def __repr__(self) -> str:
        return self.label or f"at({', '.join(map(repr, self.paths))})"


@final
@dataclass(frozen=True, slots=True, repr=False)
class _Everything(Selector):
    """All parameters of the model; it is a value, so it is not called.

    Example:
        >>> everything - glob("head")
        everything - glob('head')
    """

    def __repr__(self) -> str:
        return "everything"


everything: Selector = _Everything()


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
