"""What all errors have in common: data as attributes, and a text that is built from them when it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import dataclass_transform


def listed(paths: Sequence[str], limit: int) -> list[str]:
    """The first paths, a line each, and how many more there are."""
    rest = len(paths) - limit
    return [f"  {path}" for path in paths[:limit]] + ([f"  ... and {rest} more"] if rest > 0 else [])


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "parameter"), counted(2, "parameter"), counted(0, "leaf", "leaves")
        ('1 parameter', '2 parameters', '0 leaves')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def first_line(error: Exception) -> str:
    """The class of somebody else's error, and the first line of its text."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@dataclass_transform(eq_default=False, field_specifiers=(field,))
class FrostlineError(Exception):
    """The base of all errors of frostline.

    Every subclass is a dataclass: its fields are the arguments of its constructor, its attributes, and `args`, from
    which Python pickles and copies it.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        dataclass(eq=False, repr=False)(cls)

    def __post_init__(self) -> None:
        self.args = tuple(getattr(self, each.name) for each in fields(self) if each.init)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterable[str]:
        """The lines of the text; a class with a sentence of its own has its own."""
        return map(str, self.args)


class ExpressionError(FrostlineError):
    """Something wrong with what was written; never raised itself.

    Attributes:
        expression: what was written.
        problem: what is wrong with it, with numbers.
        found: what there was instead.
        fix: what to write instead, as code.
    """

    expression: str
    problem: str
    found: tuple[str, ...]
    fix: str

    def _lines(self) -> Iterable[str]:
        return [f"{self.expression} {self.problem}", *listed(self.found, 5), self.fix]
