"""Nested samples: split into leaves, and joined again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Structure = Any
"""The nesting of a sample without its leaves, as JSON: a string is a leaf, a list is a container."""

_NUMBERS = {bool: "bool", int: "int", float: "float"}


def structure_of(value: object) -> Structure:
    """Returns the structure of a value: tuples, lists and dicts with string keys are containers, all else is a leaf.

    Example:
        >>> structure_of((1, {"boxes": [2, 3], "label": 4}))
        ['tuple', 'int', ['dict', ['boxes', 'label'], ['list', 'int', 'int'], 'int']]
    """
    # Exact classes only: a namedtuple or an OrderedDict would lose its class.
    if type(value) is tuple or type(value) is list:
        return [type(value).__name__, *map(structure_of, value)]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return ["dict", list(value), *map(structure_of, value.values())]
    return _NUMBERS.get(type(value), "array")


def leaves_of(value: Any, structure: Structure) -> list[object]:
    """Returns the leaves of a value with this structure, in order.

    Raises:
        ValueError: it has another structure.

    Example:
        >>> value = (1, {"boxes": [2, 3], "label": 4})
        >>> leaves_of(value, structure_of(value))
        [1, 2, 3, 4]
    """
    if structure_of(value) != structure:
        raise ValueError(f"its structure is {structure_of(value)}, not {structure}")
    return list(_leaves(value, structure))


def _leaves(value: Any, structure: Structure) -> Iterator[object]:
    if isinstance(structure, str):
        yield value
    else:
        inner = value.values() if structure[0] == "dict" else value
        for part, below in zip(inner, _below(structure), strict=True):
            yield from _leaves(part, below)


def joined(leaves: Iterator[Any], structure: Structure) -> Any:
    """Returns the value with these leaves, which are arrays; leaves that were numbers become numbers again.

    Example:
        >>> joined(iter("abc"), ["dict", ["a", "b"], "array", ["tuple", "array", "array"]])
        {'a': 'a', 'b': ('b', 'c')}
    """
    if isinstance(structure, str):
        leaf = next(leaves)
        return leaf if structure == "array" else leaf.item()
    parts = [joined(leaves, below) for below in _below(structure)]
    if structure[0] == "dict":
        return dict(zip(structure[1], parts, strict=True))
    return tuple(parts) if structure[0] == "tuple" else parts


def is_structure(value: Structure) -> bool:
    """Whether a value from JSON is a structure.

    Example:
        >>> is_structure(["tuple", "int"]), is_structure(["set", "int"]), is_structure(["dict", ["a"]])
        (True, False, False)
    """
    match value:
        case "array" | "bool" | "int" | "float":
            return True
        case ["tuple" | "list", *parts]:
            return all(map(is_structure, parts))
        case ["dict", [*keys], *parts]:
            return [type(key) for key in keys] == [str] * len(parts) and all(map(is_structure, parts))
    return False


def count(structure: Structure) -> int:
    """Returns the number of leaves of a structure.

    Example:
        >>> count(["tuple", "int", ["list", "array", "array"]])
        3
    """
    return 1 if isinstance(structure, str) else sum(map(count, _below(structure)))


def _below(structure: Structure) -> list[Structure]:
    return list(structure[2:] if structure[0] == "dict" else structure[1:])


def first(sample: Any) -> tuple[Any, Any]:
    """Returns the input of the model, which is the first part of a tuple or list or the whole sample, and the rest.

    Example:
        >>> first(("image", "label", "weight")), first("image")
        (('image', ('label', 'weight')), ('image', ()))
    """
    return (sample[0], tuple(sample[1:])) if isinstance(sample, tuple | list) else (sample, ())
