"""The tree of errors: documented, builtin as well, and copied by any means with all of its data."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from dataclasses import fields

import pytest

import frostline
from frostline import FrostlineError, errors
from frostline._core.errors.base import ExpressionError
from frostline._core.findings import Finding
from frostline._core.movement import Movement

BUILTINS = {
    "BindError": ValueError,
    "BudgetError": ValueError,
    "BudgetValueError": ValueError,
    "CacheBudgetError": ValueError,
    "CacheError": ValueError,
    "CacheSpaceError": OSError,
    "CheckError": RuntimeError,
    "ConstantError": ValueError,
    "CostError": ValueError,
    "CountError": ValueError,
    "DamagedCacheError": RuntimeError,
    "DeltaError": ValueError,
    "FileFormatError": ValueError,
    "LayerError": TypeError,
    "LineError": ValueError,
    "ModeError": ValueError,
    "MovedError": RuntimeError,
    "NoMatchError": LookupError,
    "NothingFrozenError": ValueError,
    "NothingTrainableError": ValueError,
    "PinnedError": ValueError,
    "PlanError": ValueError,
    "PlanMismatchError": ValueError,
    "RankError": RuntimeError,
    "RunError": ValueError,
    "RuntimeChoiceError": ValueError,
    "SamePathError": ValueError,
    "ScheduleError": ValueError,
    "SelectorError": ValueError,
    "StaleCacheError": RuntimeError,
    "StructureError": ValueError,
    "TiedError": ValueError,
    "UnprovenError": RuntimeError,
    "UnsupportedError": NotImplementedError,
    "UntraceableError": ValueError,
    "WrappedError": RuntimeError,
}

# Arguments of each kind; those of an error are chosen by the names of its fields.
VALUES: dict[str, object] = {
    "budget": 100,
    "closest": ("body.weight",),
    "count": 6,
    "expected": 12,
    "findings": (Finding("stale-gradient", ("a.weight",), "It has one.", "It moves.", "p.grad = None"),),
    "found": ("a", "b"),
    "free": 3,
    "leaves": 7,
    "missing": ("b", "a"),
    "moved": (Movement("a.weight", "parameter", "At 0: 1.0 was 0.0.", "an optimizer", "Leave it out."),),
    "names": ("a", "b"),
    "needed": 5,
    "params": 5,
    "paths": ("a.weight", "a.bias"),
    "pinned": 2,
    "plain": 9,
    "reachable": 8,
    "row": 4,
    "rows": 20,
    "samples": 10,
    "spelled": ("a.b", "['a.b']"),
    "stored": 2,
    "totals": {"float32": 400, "float16": 200},
    "unknown": (),
    "views": 2,
    "watched": 4,
}

COPIES: dict[str, Callable[[FrostlineError], FrostlineError]] = {
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),  # type: ignore[no-any-return]
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def made(name: str) -> FrostlineError:
    """An error of this name, each of its fields by its own keyword."""
    kind = getattr(errors, name)
    given = {each.name: VALUES.get(each.name, f"<{each.name}>") for each in fields(kind) if each.init}
    if name == "TiedError":
        given["selectors"] = ("'**'", "'!b'")
    error = kind(**given)
    assert isinstance(error, FrostlineError)
    return error


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_an_error_is_also_a_builtin(name: str, builtin: type[Exception]) -> None:
    error = getattr(errors, name)
    assert issubclass(error, FrostlineError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", BUILTINS)
def test_an_error_is_copied_with_its_text_and_its_data(name: str, how: str) -> None:
    error = made(name)
    again = COPIES[how](error)
    assert again is not error
    assert (type(again), str(again), vars(again), again.args) == (type(error), str(error), vars(error), error.args)


@pytest.mark.parametrize("name", BUILTINS)
def test_an_error_takes_its_arguments_by_place_as_well(name: str) -> None:
    error = made(name)
    again = type(error)(*error.args)
    assert (str(again), vars(again)) == (str(error), vars(error))
    assert len(str(error)) > len(name)


def test_an_error_of_the_system_keeps_its_number() -> None:
    error = made("CacheSpaceError")
    assert isinstance(error, OSError)
    assert (error.errno, pickle.loads(pickle.dumps(error)).errno) == (28, 28)


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^    (?:[│ ]*[├└]── )?(\w+Error)(?: \((\w+)\))?", errors.__doc__ or "", re.MULTILINE)
    depths = re.findall(r"^    ([│ ]*)(?:[├└]── )?\w+Error", errors.__doc__ or "", re.MULTILINE)
    assert dict(drawn) == {
        "FrostlineError": "",
        **{name: "" if _builtin_of_parent(name) else BUILTINS[name].__name__ for name in BUILTINS},
    }
    nested = {name for (name, _), depth in zip(drawn, depths, strict=True) if depth}
    assert nested == {name for name in BUILTINS if _parent(name) is not FrostlineError}


def _parent(name: str) -> type:
    """The nearest class above that is public."""
    public = {getattr(errors, each) for each in errors.__all__}
    return next(kind for kind in getattr(errors, name).__mro__[1:] if kind in public)


def _builtin_of_parent(name: str) -> bool:
    """Whether the builtin of an error is the one of the error above it, and therefore not drawn again."""
    parent = _parent(name)
    return parent is not FrostlineError and BUILTINS[parent.__name__] is BUILTINS[name]


def test_every_error_is_public() -> None:
    found: list[type] = [FrostlineError]
    for kind in found:
        found += [child for child in kind.__subclasses__() if child.__module__.startswith("frostline.")]
    assert {kind.__name__ for kind in found} - {ExpressionError.__name__} == set(errors.__all__)
    assert set(errors.__all__) == {"FrostlineError", *BUILTINS}


def test_a_traceback_shows_where_an_error_can_be_imported_from() -> None:
    assert {getattr(errors, name).__module__ for name in errors.__all__} == {"frostline.errors"}


def test_the_constructor_of_an_error_comes_from_its_fields() -> None:
    for name in BUILTINS:
        kind = getattr(errors, name)
        assert list(inspect.signature(kind).parameters) == [each.name for each in fields(kind) if each.init]


def test_the_top_has_those_that_people_catch() -> None:
    assert [name for name in frostline.__all__ if name.endswith("Error")] == [
        "CheckError",
        "FrostlineError",
        "MovedError",
        "NoMatchError",
        "NothingTrainableError",
        "UnsupportedError",
    ]
