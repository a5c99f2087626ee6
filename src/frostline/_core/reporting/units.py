"""The units of bytes, operations and percentages in printed texts."""

from __future__ import annotations

from collections.abc import Sequence


def human(count: int) -> str:
    """Formats a number of bytes.

    Example:
        >>> human(999), human(2048), human(3 * 1024**3)
        ('999 B', '2.0 KiB', '3.0 GiB')
    """
    return f"{count} B" if count < 1024 else _scaled(count, 1024, ("KiB", "MiB", "GiB", "TiB"))


def flops(count: int) -> str:
    """Formats a number of floating-point operations.

    Example:
        >>> from frostline._core.reporting.units import flops
        >>> flops(999), flops(2_500), flops(3_640_000_000), flops(0)
        ('999', '2.5 k', '3.6 G', '0')
    """
    return str(count) if count < 1000 else _scaled(count, 1000, ("k", "M", "G", "T", "P"))


def percent(value: float) -> str:
    """Formats a percentage without decimals."""
    return f"{value:.0f} %"


def _scaled(count: float, step: int, units: Sequence[str]) -> str:
    size, rest = count / step, list(units)
    # A size just below the next unit would print as 1024.0.
    while size >= step - 0.05 and len(rest) > 1:
        size, rest = size / step, rest[1:]
    return f"{size:.1f} {rest[0]}"
