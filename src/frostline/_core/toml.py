"""TOML texts of JSON-able data; Python reads the format, but does not write it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

# What may not stand in a text as it is: quotes, backslashes and what controls a terminal. TOML has no \x07, but \u0007.
_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f]')


def write(data: Mapping[str, object]) -> str:
    """The text of a document: values first, then a ``[[name]]`` for each member of a list of mappings.

    Args:
        data: texts, numbers, truths and lists of them by name, and lists of mappings of such; names are bare keys.

    Example:
        >>> print(write({"version": 1, "blocks": ["a", "b"], "spans": [{"start": 0}]}), end="")
        version = 1
        blocks = ["a", "b"]
        <BLANKLINE>
        [[spans]]
        start = 0
    """
    tables = {name: value for name, value in data.items() if _is_tables(value)}
    lines = _lines({name: value for name, value in data.items() if name not in tables})
    for name, members in tables.items():
        assert isinstance(members, list), "a list of mappings is a list"
        for member in members:
            lines += ["", f"[[{name}]]", *_lines(member)]
    return "\n".join(lines) + "\n"


def parse(text: object) -> dict[str, object]:
    """The data in a text.

    Raises:
        ValueError: it is no TOML; the text of the error says why.
    """
    if not isinstance(text, str):
        raise ValueError(f"it is a {type(text).__name__}, not a text")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is no TOML ({error})") from error


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(member, Mapping) for member in value)


def _lines(data: Mapping[str, object]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in data.items()]


def _value(value: object) -> str:
    if isinstance(value, str):
        return f'"{_ESCAPED.sub(_escape, value)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    assert isinstance(value, int | float), "documents hold texts, numbers, truths and lists of them"
    return repr(value)


def _escape(found: re.Match[str]) -> str:
    return f"\\{found[0]}" if found[0] in '"\\' else f"\\u{ord(found[0]):04x}"
