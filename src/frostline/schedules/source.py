"""The call that makes a value, as text."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def source(value: Any) -> str:
    """The source that makes `value`, an object of a dataclass; what has its default is left out.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Pair:
        ...     one: int
        ...     other: int = 2
        >>> source(Pair(1, 2)), source(Pair(1, 3))
        ('Pair(one=1)', 'Pair(one=1, other=3)')
    """
    said = ((field.name, getattr(value, field.name)) for field in fields(value) if not _is_default(value, field))
    return f"{type(value).__name__}({', '.join(f'{name}={found!r}' for name, found in said)})"


def _is_default(value: Any, field: Any) -> bool:
    return bool(getattr(value, field.name) == field.default)
