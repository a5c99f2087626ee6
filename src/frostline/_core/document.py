"""JSON texts with a kind and a version: the same value is always the same bytes, and nothing foreign is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

VERSION = 1


def write(kind: str, fields: Mapping[str, object]) -> str:
    """The text of one document, with a newline at its end."""
    return json.dumps(stamped(kind, fields), indent=2, sort_keys=True) + "\n"


def stamped(kind: str, fields: Mapping[str, object]) -> dict[str, object]:
    """The fields with what says how to read them."""
    return {"format": f"frostline.{kind}", "version": VERSION, **fields}


def parse(text: object) -> object:
    """The data in a text.

    Raises:
        ValueError: it is no JSON, or a key comes twice; the text of the error says which.
    """
    if not isinstance(text, str):
        raise ValueError(f"it is a {type(text).__name__}, not a text")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error})") from error


def fields(data: object, kind: str, names: Iterable[str]) -> dict[str, Any]:
    """The fields of a document that was read.

    Raises:
        ValueError: it is no document of this kind; the text of the error says why.
    """
    if not isinstance(data, dict):
        raise ValueError(f"it is a {type(data).__name__}, not an object")
    if data.get("format") != f"frostline.{kind}":
        raise ValueError(f"its format is {data.get('format')!r}, not 'frostline.{kind}'")
    # True == 1, and a version is no truth.
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise ValueError(f"its version is {data.get('version')!r}, and this is version {VERSION}")
    wanted, given = {"format", "version", *names}, set(data)
    if wanted != given:
        raise ValueError(f"it lacks {sorted(wanted - given)} and has {sorted(map(str, given - wanted))} too much")
    return {name: data[name] for name in names}


def texts(name: str, value: object) -> list[str]:
    """A list of distinct texts.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name!r} is no list of paths")
    if len(set(value)) != len(value):
        raise ValueError(f"a path comes twice in {name!r}")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice in one object")
    return found
