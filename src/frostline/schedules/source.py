"""Values printed as the source code that creates them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def source(value: Any) -> str:
    """Returns the call that creates a dataclass object, without arguments that equal their default.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Pair:
        ...     one: int
        ...     other: int = 2
        >>> source(Pair(1, 2)), source(Pair(1, 3))
        ('Pair(one=1)', 'Pair(one=1, other=3)')
    """
    given = ((field, getattr(value, field.name)) for field in fields(value))
    arguments = ", ".join(f"{field.name}={found!r}" for field, found in given if found != field.default)
    return f"{type(value).__name__}({arguments})"
