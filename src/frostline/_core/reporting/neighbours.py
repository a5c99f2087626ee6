"""Grouping equal neighbours of a list in one row of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TypeVar

from frostline._core.selecting.pattern import spell
from frostline._core.tree import is_position

Item = TypeVar("Item")


def grouped(items: Sequence[Item], key: Callable[[Item], str], likeness: Callable[[Item], object]) -> list[list[Item]]:
    """Groups equal items whose keys are consecutive numbers; every other item is a group of its own.

    Example:
        >>> grouped(["0a", "1a", "2b", "head"], key=lambda item: item.rstrip("ab"), likeness=lambda item: item[-1])
        [['0a', '1a'], ['2b'], ['head']]
    """

    def run(place: tuple[int, Item]) -> object:
        position, item = place
        name = key(item)
        return (int(name) - position, likeness(item)) if is_position(name) else name

    return [[item for _, item in group] for _, group in groupby(enumerate(items), key=run)]


def label(keys: Sequence[str], count: int) -> str:
    """Returns the name of a row for `count` neighbours, the first of which has these keys.

    Example:
        >>> label(("encoder", "layers", "2"), 1), label(("encoder", "layers", "2"), 3)
        ('encoder.layers.2', 'encoder.layers[2:5] ×3')
    """
    if count == 1:
        return spell(keys)
    first = int(keys[-1])
    return f"{spell(keys[:-1])}[{first}:{first + count}] ×{count}"
