"""The grammar of patterns: a path as Python writes it after ``model.``, with wildcards.

pattern = step { step }
step    = name | "*" | "**" | index | key     names after the first are preceded by a dot
name    = characters, "*" for any run of them, "{a,b}" for alternatives
index   = "[3]" | "[-1]" | "[2:8:2]"          as in Python: on a list, or on one name with numbers (layers_0, layers_1)
key     = "['mlp/~/linear']"                  a key that is not an identifier
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from frostline._core.errors import SelectorError


@final
@dataclass(frozen=True, slots=True)
class Key:
    """One segment, spelled out."""

    key: str


@final
@dataclass(frozen=True, slots=True)
class Wild:
    """One segment with wildcards."""

    keys: re.Pattern[str]


@final
@dataclass(frozen=True, slots=True)
class Deep:
    """Any number of segments, none included."""


@final
@dataclass(frozen=True, slots=True)
class Item:
    """One child by its position, or several."""

    index: int | slice


Step = Key | Wild | Deep | Item

_BARE = r"[^\s.\[\]{},*!?()|^$\\+'\"]"
_NAME = re.compile(rf"(?:{_BARE}|[*{{}},])+")
_STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_BRACKET = re.compile(rf"\[\s*(?:(?P<key>{_STRING})|(?P<index>[-\d:\s]*))\s*\]", re.DOTALL)
# Nine digits: longer than any model, shorter than what int() refuses.
_INTEGER = r"\s*(-?[0-9]{1,9})?\s*"
_INDEX = re.compile(rf"{_INTEGER}(?:(:){_INTEGER}(?::{_INTEGER})?)?")


def spell(keys: Sequence[str]) -> str:
    """Returns the pattern that names exactly the path with these keys.

    Example:
        >>> print(spell(("layers", "0", "mlp/~/linear", "a.b", "w")))
        layers.0.mlp/~/linear['a.b'].w
    """
    # Unprintable characters could rewrite the terminal that shows an error or a report.
    plain = (re.fullmatch(f"{_BARE}+", key) and key.isprintable() for key in keys)
    parts = (f".{key}" if bare else f"[{key!r}]" for key, bare in zip(keys, plain, strict=True))
    return "".join(parts).removeprefix(".")


def covering(paths: Sequence[str], others: Iterable[str]) -> list[str]:
    """Returns the shortest patterns that together match all paths and none of the others; paths are dotted.

    Example:
        >>> covering(["stem.weight", "stem.bias", "body.0.weight"], ["body.1.weight"])
        ['stem', 'body.0']
    """
    taken = {tuple(keys[:depth]) for keys in (other.split(".") for other in others) for depth in range(len(keys) + 1)}
    found: dict[str, None] = {}
    for path in paths:
        keys = path.split(".")
        prefixes = (keys[:depth] for depth in range(1, len(keys) + 1))
        found[spell(next(each for each in prefixes if each == keys or tuple(each) not in taken))] = None
    return list(found)


@lru_cache(maxsize=4096)
def parse(pattern: str) -> tuple[Step, ...]:
    """Reads a pattern.

    Args:
        pattern: its text.

    Returns:
        What to do from the root on, step by step.

    Raises:
        SelectorError: the text is not a pattern.

    Example:
        >>> parse("encoder[-1].weight")
        (Key(key='encoder'), Item(index=-1), Key(key='weight'))
    """
    if not pattern:
        raise SelectorError("''", "is empty.", 'Write "**" for the whole model.')
    steps: list[Step] = []
    at = 0
    while at < len(pattern):
        step, at = _bracket(pattern, at) if pattern[at] == "[" else _segment(pattern, at)
        steps.append(step)
    return tuple(steps)


def _segment(pattern: str, at: int) -> tuple[Step, int]:
    if at and pattern[at] != ".":
        raise _missing_dot(pattern, at) if _NAME.match(pattern, at) else _refusal(pattern, at)
    start = at + 1 if at else 0
    name = _NAME.match(pattern, start)
    if name is None:
        raise _refusal(pattern, start)
    return _named(pattern, name[0], start), name.end()


def _named(pattern: str, name: str, at: int) -> Step:
    if name == "**":
        return Deep()
    if "**" in name:
        problem = f"has '**' inside of the segment {name!r} at position {at}."
        raise SelectorError(repr(pattern), problem, 'Write "*" within a segment and "**" between dots: "**.norm*".')
    if "*" not in name and "{" not in name and "}" not in name and "," not in name:
        return Key(name)
    return Wild(_wildcards(pattern, name, at))


_WILD = {"*": ".*", "{": "(?:", "}": ")"}


def _wildcards(pattern: str, name: str, at: int) -> re.Pattern[str]:
    depth, parts = 0, []
    for offset, letter in enumerate(name):
        depth += (letter == "{") - (letter == "}")
        if depth < 0 or (letter == "," and not depth):
            raise _refusal(pattern, at + offset)
        parts.append("|" if letter == "," else _WILD.get(letter, re.escape(letter)))
    if depth:
        problem = f"has a '{{' without '}}' in the segment {name!r} at position {at}."
        raise SelectorError(repr(pattern), problem, 'Alternatives are written within one segment: "{q,v}_proj".')
    return re.compile("".join(parts), re.DOTALL)


def _bracket(pattern: str, at: int) -> tuple[Step, int]:
    found = _BRACKET.match(pattern, at)
    if found is None and "]" not in pattern[at:]:
        problem = f"has a '[' at position {at} that is not closed."
        closed = pattern if pattern[at + 1 :] else f"{pattern}0"
        raise SelectorError(repr(pattern), problem, f"Close it: {closed + ']'!r}.")
    if found is None:
        problem = f"has no index in the brackets at position {at}."
        raise SelectorError(repr(pattern), problem, "Write [3], [-1], [2:8:2], or ['key'] for a key in quotes.")
    if found["key"] is not None:
        return Key(_literal(pattern, found["key"], at)), found.end()
    return Item(_index(pattern, found["index"], at)), found.end()


def _literal(pattern: str, text: str, at: int) -> str:
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError) as error:
        problem = f"has a key at position {at} that Python cannot read: {text}."
        raise SelectorError(repr(pattern), problem, "Write the key as a string of Python, ['key'].") from error


def _index(pattern: str, text: str, at: int) -> int | slice:
    found = _INDEX.fullmatch(text)
    if found is None or not text.strip():
        problem = f"has no index in the brackets at position {at}: [{text}]."
        raise SelectorError(repr(pattern), problem, "Write [3], [-1], [2:8:2], or ['key'] for a key in quotes.")
    start, colon, stop, step = found.groups()
    if colon is None:
        return int(start)
    if step is not None and int(step) == 0:
        problem = f"has a slice with step 0 at position {at}: [{text}]."
        raise SelectorError(repr(pattern), problem, "Write a step that is not 0, as in Python.")
    return slice(*(None if part is None else int(part) for part in (start, stop, step)))


def _missing_dot(pattern: str, at: int) -> SelectorError:
    fix = f"Write {pattern[:at] + '.' + pattern[at:]!r}."
    return SelectorError(repr(pattern), f"has no dot at position {at}.", fix)


def _refusal(pattern: str, at: int) -> SelectorError:
    if at >= len(pattern) or pattern[at] == "." or pattern[at] == "[":
        problem = f"has an empty segment at position {at}."
        return SelectorError(repr(pattern), problem, 'Write one dot between two names: "encoder.weight".')
    problem = f"has {pattern[at]!r} at position {at}, which no name holds unquoted."
    if pattern[at] == "!":
        fix = 'Take back with freeze(model, "**", "!head"), or between selectors with everything - glob("head").'
        return SelectorError(repr(pattern), problem, fix)
    fix = "Write a key that is not an identifier as ['my key'], and a regular expression as regex(r\"...\")."
    return SelectorError(repr(pattern), problem, fix)
