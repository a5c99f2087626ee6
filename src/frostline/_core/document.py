"""Documents, as JSON or TOML, with a kind and a version: equal values give equal bytes, and nothing foreign is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

VERSION = 1


def write(kind: str, fields: Mapping[str, object]) -> str:
    """The JSON text of one document, with a newline at its end."""
    return json.dumps(stamped(kind, fields), indent=2, sort_keys=True) + "\n"


def write_toml(stamped: Mapping[str, object]) -> str:
    """The TOML text of one document, in the order of its fields."""
    # Imported here and below: most programs never read or write TOML.
    from tomli_w import dumps

    return dumps(stamped)


def stamped(kind: str, fields: Mapping[str, object]) -> dict[str, object]:
    """The fields with what says how to read them."""
    return {"format": f"frostline.{kind}", "version": VERSION, **fields}


def parse(text: object) -> object:
    """The data in a JSON text.

    Raises:
        ValueError: it is not JSON, or a key comes twice; the text of the error says which.
    """
    try:
        return json.loads(_checked(text), object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error


def parse_toml(text: object) -> dict[str, object]:
    """The data in a TOML text.

    Raises:
        ValueError: it is not TOML; the text of the error says why.
    """
    from tomllib import TOMLDecodeError, loads

    try:
        return loads(_checked(text))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except TOMLDecodeError as error:
        raise ValueError(f"it is not TOML ({error})") from error


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise ValueError(f"it is a {type(text).__name__}, not a text")
    return text


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice in one object")
    return found


def fields(data: object, kind: str, names: Iterable[str]) -> dict[str, Any]:
    """The fields of a document that was read.

    Raises:
        ValueError: it is not a document of this kind; the text of the error says why.
    """
    if not isinstance(data, dict):
        raise ValueError(f"it is a {type(data).__name__}, not an object")
    if data.get("format") != f"frostline.{kind}":
        raise ValueError(f"its format is {data.get('format')!r}, not 'frostline.{kind}'")
    # True == 1, and a version is not a boolean.
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise ValueError(f"its version is {data.get('version')!r}, and this is version {VERSION}")
    wanted, given = {"format", "version", *names}, set(data)
    if wanted != given:
        missing, unknown = sorted(wanted - given), sorted(map(str, given - wanted))
        clauses = ([f"lacks {missing}"] if missing else []) + ([f"has {unknown} too much"] if unknown else [])
        raise ValueError(f"it {' and '.join(clauses)}")
    return {name: data[name] for name in names}


def texts(name: str, value: object) -> list[str]:
    """A list of distinct texts.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name!r} is not a list of paths")
    if len(set(value)) != len(value):
        raise ValueError(f"a path comes twice in {name!r}")
    return value
