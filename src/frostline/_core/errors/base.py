"""What all errors have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def listed(paths: Sequence[str], limit: int) -> list[str]:
    """The first paths, a line each, and how many more there are."""
    rest = len(paths) - limit
    return [f"  {path}" for path in paths[:limit]] + ([f"  ... and {rest} more"] if rest > 0 else [])


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def first_line(error: Exception) -> str:
    """The class of somebody else's error, and the first line of its text."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class FrostlineError(Exception):
    """What all errors of frostline have in common: the arguments are the lines of the text, or the data behind it."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterable[str]:
        """The lines of the text."""
        return [str(part) for part in self.args]
