"""The precisions in which numbers can be stored, and their bytes."""

from __future__ import annotations

from typing import Final

from frostline._core.errors import CacheError

EXACT: Final = "exact"
PRECISIONS: Final = (EXACT, "float32", "bfloat16", "int8")
ITEMSIZES: Final = {
    "bool": 1,
    "uint8": 1,
    "int8": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "uint16": 2,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "uint32": 4,
    "int32": 4,
    "float32": 4,
    "uint64": 8,
    "int64": 8,
    "float64": 8,
    "complex64": 8,
}
"""Bytes of a number of each dtype that can be stored."""

# The dtypes that bfloat16 and int8 make smaller.
_SHRINKS: Final = ("float16", "bfloat16", "float32", "float64")


def stored_as(dtype: str, precision: str) -> str:
    """Returns the dtype in which numbers of a dtype are stored.

    Integers keep their dtype, and no value is stored in a wider dtype.

    Raises:
        CacheError: the format cannot store the dtype.

    Example:
        >>> [stored_as("float32", precision) for precision in ("exact", "float32", "bfloat16", "int8")]
        ['float32', 'float32', 'bfloat16', 'int8']
        >>> stored_as("int64", "int8"), stored_as("float16", "bfloat16"), stored_as("float16", "float32")
        ('int64', 'float16', 'float16')
    """
    if dtype not in ITEMSIZES:
        words = f"cannot be stored. The {len(ITEMSIZES)} possible dtypes are:"
        raise CacheError(f"A value of dtype {dtype}", words, (", ".join(ITEMSIZES),), "Cast it to one of them.")
    if precision == EXACT or dtype not in _SHRINKS:
        return dtype
    return precision if ITEMSIZES[precision] < ITEMSIZES[dtype] else dtype


def check(precision: str) -> None:
    """Checks that a precision exists.

    Raises:
        CacheError: it does not exist.
    """
    if precision not in PRECISIONS:
        words = f"is not one of the {len(PRECISIONS)} precisions:"
        found = (
            '"exact": the computed bits',
            '"float32": wider numbers are rounded',
            '"bfloat16": 2 bytes a number, 8 significant bits',
            '"int8": 1 byte a number, 256 steps between the minimum and the maximum of a sample',
        )
        raise CacheError(f"dtype={precision!r}", words, found, 'Write dtype="bfloat16", or leave it out.')


def smaller(precision: str) -> tuple[str, ...]:
    """Returns the precisions that may need fewer bytes than this one.

    Example:
        >>> smaller("exact"), smaller("int8")
        (('bfloat16', 'int8'), ())
    """
    after = PRECISIONS[PRECISIONS.index(precision) + 1 :]
    return tuple(word for word in after if word != "float32")
