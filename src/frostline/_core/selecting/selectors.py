"""Selectors as values: they compare by value, are hashable, and print as the source code that creates them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import final

from frostline._core.errors import SelectorError
from frostline._core.param import Param
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.pattern import parse

_FUNCTION = re.compile(r"\w+(?:\.\w+)*:\w+(?:\.\w+)*")


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
        classes: the classes, one or more, or their names: ``"LayerNorm"``, ``"torch.nn.LayerNorm"``.

    Raises:
        SelectorError: an argument is neither a class nor a name, or there is none.

    Example:
        >>> of_type(int, "LayerNorm")
        of_type(int, 'LayerNorm')
    """

    classes: tuple[type | str, ...]

    def __init__(self, *classes: type | str) -> None:
        object.__setattr__(self, "classes", classes)
        wrong = [given for given in classes if not (isinstance(given, type) or (isinstance(given, str) and given))]
        if wrong or not classes:
            problem = f"holds {len(wrong)} things that are not classes." if wrong else "names no class."
            given = ", ".join(_class_name(given) for given in classes)
            raise SelectorError(f"of_type({given})", problem, "Write the class itself: of_type(LayerNorm).")

    def __repr__(self) -> str:
        return f"of_type({', '.join(_class_name(owner) for owner in self.classes)})"

    def takes(self, owner: type) -> bool:
        """Whether a class is one of these, or a subclass."""
        return any(
            any(_is_called(base, each) for base in owner.__mro__) if isinstance(each, str) else issubclass(owner, each)
            for each in self.classes
        )


def _is_called(owner: type, name: str) -> bool:
    """Whether a name ends in that of the class, and begins as its module does: a package may pass its classes on."""
    package = name.removesuffix(owner.__qualname__)
    if package == name or (package and not package.endswith(".")):
        return False
    return f"{owner.__module__}.".startswith(package)


def _class_name(owner: object) -> str:
    return owner.__qualname__ if isinstance(owner, type) else repr(owner)


@final
@dataclass(frozen=True, slots=True, repr=False)
class where(Selector):
    """The parameters for which a predicate is true.

    Args:
        predicate: takes a `Param` (its `path`, `shape`, `size`, `dtype`, ...) and returns whether to select it; or the
            name of such a function, ``"my.module:function"``, which is imported when the selector is used.

    Raises:
        SelectorError: the predicate cannot be called, and is not such a name.

    Example:
        >>> def is_vector(param):
        ...     return len(param.shape) == 1
        >>> where(is_vector)
        where(is_vector)
    """

    predicate: Callable[[Param], object] | str

    def __post_init__(self) -> None:
        is_name = isinstance(self.predicate, str) and _FUNCTION.fullmatch(self.predicate)
        if not callable(self.predicate) and not is_name:
            problem = "is made neither from something to call nor from the name of a function."
            fix = 'Write where(lambda p: p.size > 1e6), or where("my.module:function").'
            raise SelectorError(f"where({self.predicate!r})", problem, fix)

    def __repr__(self) -> str:
        return f"where({getattr(self.predicate, '__name__', None) or repr(self.predicate)})"

    def function(self) -> Callable[[Param], object]:
        """The predicate, imported if it was named.

        Raises:
            SelectorError: it cannot be imported, or called.
        """
        if not isinstance(self.predicate, str):
            return self.predicate
        module, _, name = self.predicate.partition(":")
        try:
            found = attrgetter(name)(import_module(module))
        except (ImportError, AttributeError) as error:
            fix = 'Write the module and the name of a function in it: where("my.module:function").'
            raise SelectorError(repr(self), f"cannot be imported: {error}.", fix) from error
        if not callable(found):
            raise SelectorError(repr(self), "is no function.", 'Name a function: where("my.module:function").')
        return found  # type: ignore[no-any-return]


@final
@dataclass(frozen=True, slots=True, repr=False)
class own(Selector):
    """The parameters that the modules named by a pattern have themselves, and none of those below them.

    PyTorch's word for it is ``recurse=False``.

    Args:
        pattern: the modules, as for :class:`glob`.

    Raises:
        SelectorError: the pattern cannot be read.

    Example:
        >>> own("encoder") | own("**.attn")
        own('encoder') | own('**.attn')
    """

    pattern: str

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str):
            raise SelectorError(f"own({self.pattern!r})", "is not made from a string.", 'Write own("encoder").')
        parse(self.pattern)

    def __repr__(self) -> str:
        return f"own({self.pattern!r})"


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
