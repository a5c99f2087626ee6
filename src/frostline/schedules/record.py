"""The base of schedules and policies: saving, loading, and printing as source code."""

from __future__ import annotations

import inspect
from abc import ABC
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from frostline._core import document
from frostline._core.errors import FileFormatError, ScheduleError
from frostline._core.files import check_regular, unreadable
from frostline._core.selecting.nearby import closest
from frostline.schedules.arguments import mapping
from frostline.schedules.source import source

Kind = TypeVar("Kind", bound="Record")


class Record(ABC):
    """A frozen dataclass of strings, numbers, lists of them, and phases; a document finds it by its class name."""

    # The word for it in documents and in errors.
    noun: ClassVar[str]

    def __repr__(self) -> str:
        return source(self)

    def to_dict(self) -> dict[str, object]:
        """Returns plain data for JSON."""
        return document.stamped(self.noun, self._content())

    def to_json(self) -> str:
        """Returns JSON text; equal values give equal bytes."""
        return document.write(self.noun, self._content())

    def to_toml(self) -> str:
        """Returns TOML text, which is easy to edit; equal values give equal bytes."""
        return document.write_toml(self.to_dict())

    def _content(self) -> dict[str, object]:
        found: dict[str, object] = {self.noun: type(self).__name__}
        values = ((field.name, getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        # TOML has no null.
        return found | {name: _plain(value) for name, value in values if value is not None}

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """Reads the data that `to_dict` returned.

        Raises:
            ScheduleError: the data is not a valid schedule or policy.
        """
        return cls._read(data, f"{cls.__name__}.from_dict(data)")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads the text that `to_json` returned.

        Raises:
            ScheduleError: the text is not a valid schedule or policy.
        """
        expression = f"{cls.__name__}.from_json(text)"
        try:
            data = document.parse(text)
        except ValueError as error:
            raise cls._unreadable(expression, error) from error
        return cls._read(data, expression)

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Reads TOML text, written by `to_toml` or by hand.

        Fields with a default may be left out, and ``format`` and ``version`` together: then it is the present version.

        Raises:
            ScheduleError: the text is not a valid schedule or policy.
        """
        expression = f"{cls.__name__}.from_toml(text)"
        try:
            data = document.parse_toml(text)
        except ValueError as error:
            raise cls._unreadable(expression, error) from error
        if isinstance(data, dict) and cls.noun in data and not {"format", "version"} & data.keys():
            data = document.stamped(cls.noun, data)
        return cls._read(data, expression)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Reads a ``.toml`` or ``.json`` file.

        Raises:
            FileFormatError: the file does not exist, or has another suffix.
            ScheduleError: its content is not a valid schedule or policy.
        """
        read = cls.from_toml if _suffix(file, cls.noun) == ".toml" else cls.from_json
        text = _text(file)
        try:
            return read(text)
        except ScheduleError as error:
            raise ScheduleError(f"{str(file)!r}: {error.expression}", error.problem, error.found, error.fix) from error

    def save(self, file: Path) -> None:
        """Writes a ``.toml`` or ``.json`` file.

        Raises:
            FileFormatError: the file has another suffix.
        """
        text = self.to_toml() if _suffix(file, self.noun) == ".toml" else self.to_json()
        file.write_text(text, encoding="utf-8")

    @classmethod
    def _read(cls, data: object, expression: str) -> Self:
        try:
            content = document.fields(data, cls.noun, _fields(data))
        except ValueError as error:
            raise cls._unreadable(expression, error) from error
        return _known(cls, content.pop(cls.noun, None), expression)._made(content)

    @classmethod
    def _made(cls, content: dict[str, object]) -> Self:
        required = {field.name for field in fields(cls) if field.default is MISSING}  # type: ignore[arg-type]
        optional = {field.name for field in fields(cls)} - required  # type: ignore[arg-type]
        return cls(**cls._parsed(mapping(f"{cls.__name__}(...)", content, required, optional)))

    @classmethod
    def _parsed(cls, content: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments of the constructor from the content of a document."""
        return content

    @classmethod
    def _unreadable(cls, expression: str, error: ValueError) -> ScheduleError:
        fix = f"Write it with {cls.noun}.to_toml() or {cls.noun}.to_json()."
        return ScheduleError(expression, f"cannot read a {cls.noun}: {error}.", (), fix)


def _plain(value: Any) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


def _fields(data: object) -> list[str]:
    return [name for name in data if name not in {"format", "version"}] if isinstance(data, dict) else []


def _known(top: type[Kind], name: object, expression: str) -> type[Kind]:
    kinds = {kind.__name__: kind for kind in _family(top) if not inspect.isabstract(kind)}
    if isinstance(name, str) and name in kinds:
        return kinds[name]
    near = closest(name, sorted(kinds)) or sorted(kinds)
    found = ("Closest names:", *(f"  {each}" for each in near))
    problem = f"finds no {top.noun} with the name {name!r}."
    fix = f'Write {top.noun} = "{near[0]}", or first import the module that defines your own {top.noun}.'
    raise ScheduleError(expression, problem, found, fix)


def _family(top: type[Kind]) -> list[type[Kind]]:
    return [top, *(kind for child in top.__subclasses__() for kind in _family(child))]


def _suffix(file: Path, noun: str) -> str:
    if file.suffix in {".toml", ".json"}:
        return file.suffix
    problem = f"its name ends in {file.suffix!r}, and a {noun} is a .toml or a .json file"
    raise FileFormatError(str(file), problem, f"Name it {str(file.with_suffix('.toml'))!r}.")


def _text(file: Path) -> str:
    check_regular(file)
    try:
        # Some editors write a byte order mark first, which this encoding skips.
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(str(file), "it is not UTF-8 text", "Save it again as UTF-8.") from error
    except OSError as error:
        raise unreadable(file, error) from error
