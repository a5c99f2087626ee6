"""Reading numbers of bytes as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

from frostline._core.errors import CacheError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "B": 1}


def parsed(size: int | str) -> int:
    """Returns the number of bytes that a string means; an int is returned unchanged.

    Raises:
        CacheError: the value is not a size.

    Example:
        >>> parsed("20GB"), parsed("1.5 GiB"), parsed(4096)
        (20000000000, 1610612736, 4096)
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
    if found is None or found[2].upper() not in _UNITS:
        words = "is not a number of bytes. A number may have one of these units:"
        raise CacheError(f"budget={size!r}", words, ("KB, MB, GB, TB, KiB, MiB, GiB, TiB",), 'Write budget="20GB".')
    return int(Decimal(found[1]) * _UNITS[found[2].upper()])
