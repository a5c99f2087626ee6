"""Checks of the arguments of schedules and policies: whole numbers, numbers, choices, and names of blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from numbers import Real
from operator import index

from frostline._core.errors import ScheduleError
from frostline._core.errors.base import counted
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.nearby import closest
from frostline._core.selecting.text import selector_of, text_of


def whole(owner: str, name: str, value: object, least: int | None = 0) -> int:
    """Returns `value` as a whole number of at least `least`; None allows negative numbers too.

    Raises:
        ScheduleError: `value`, the argument `name` of `owner`, is anything else.
    """
    try:
        # Python counts True as 1, but here it is a mistake.
        number = None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        kind = "" if number is not None else f" of type {type(value).__name__}"
        bound, fix = ("", 0) if least is None else (f" of at least {least}", max(least, 1))
        problem = f"is {value!r}{kind}, and must be a whole number{bound}."
        raise ScheduleError(f"{owner}({name}={value!r})", problem, (), f"Write {owner}(..., {name}={fix}).")
    return number


def number(
    owner: str, name: str, value: object, *, least: float = 0.0, above: float = -inf, most: float = inf
) -> float:
    """Returns `value` as a finite number that is at least `least`, greater than `above` and at most `most`.

    Raises:
        ScheduleError: `value`, the argument `name` of `owner`, is anything else.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        found = float(value)
        if isfinite(found) and least <= found <= most and found > above:
            return found
    bounds = f"above {above:g}" if above > -inf else f"of at least {least:g}"
    bounds += f" and at most {most:g}" if most < inf else ""
    fix = f"Write {owner}(..., {name}={min(max(least, 1.0), most)!r})."
    raise ScheduleError(f"{owner}({name}={value!r})", f"must be a finite number {bounds}.", (), fix)


def choice(owner: str, name: str, value: object, choices: Sequence[str]) -> str:
    """Returns `value` if it is one of the choices.

    Raises:
        ScheduleError: `value`, the argument `name` of `owner`, is anything else.
    """
    if isinstance(value, str) and value in choices:
        return value
    problem = f"is not one of the {len(choices)} possible values."
    found = ("Possible values:", *(f"  {each!r}" for each in choices))
    fix = f"Write {owner}(..., {name}={(closest(value, choices) or choices)[0]!r})."
    raise ScheduleError(f"{owner}({name}={value!r})", problem, found, fix)


RESTS = ("frozen", "train")


def blocks(owner: str, name: str, value: object, least: int = 1) -> tuple[str, ...]:
    """Returns the names of blocks: selectors as in ``freeze(model, ...)``, each once, none with a "!".

    Raises:
        ScheduleError: `value` is not a list of such selectors, or has fewer than `least`.
        SelectorError: a selector cannot be read.
    """
    given = f"{owner}({name}={value!r})"
    fix = f'Write {owner}(..., {name}=["encoder.layers[0]", "encoder.layers[1]"]).'
    if isinstance(value, str):
        raise ScheduleError(given, "is a string, and must be a list of selectors.", (), f"Write {name}=[{value!r}].")
    if not isinstance(value, Sequence):
        problem = f"is of type {type(value).__name__}, and must be a list of selectors."
        raise ScheduleError(given, problem, (), fix)
    if len(value) < least:
        problem = f"names {len(value)} blocks, and needs {least} or more, in order from input to output."
        raise ScheduleError(given, problem, (), fix)
    texts = [text_of(each) if isinstance(each, Selector) else each for each in value]
    _check_each(owner, name, texts)
    return tuple(texts)


def _check_each(owner: str, name: str, names: Sequence[object]) -> None:
    wrong = [each for each in names if not isinstance(each, str) or each.startswith("!")]
    if wrong:
        problem = f"has {len(wrong)} of {len(names)} entries that are not selectors without '!'."
        fix = 'Write the paths of modules: "encoder.layers[0]".'
        raise ScheduleError(f"{owner}({name}=...)", problem, tuple(f"  {each!r}" for each in wrong[:5]), fix)
    for each in names:
        selector_of(str(each))
    if twice := [each for each, times in Counter(names).items() if times > 1]:
        problem = f"names {len(twice)} of {len(set(names))} blocks more than once."
        fix = f"Name each block once: remove one {twice[0]!r}."
        raise ScheduleError(f"{owner}({name}=...)", problem, tuple(f"  {each}" for each in twice[:5]), fix)


def mapping(expression: str, data: object, required: set[str], optional: set[str]) -> dict[str, object]:
    """Returns the fields of an object from a document.

    Raises:
        ScheduleError: it lacks a required field, or has a field that is neither required nor optional.
    """
    fix = f"Write it with these fields: {', '.join(sorted(required))}."
    if not isinstance(data, Mapping):
        raise ScheduleError(expression, f"is a {type(data).__name__}, not an object.", (), fix)
    missing, unknown = sorted(required - set(data)), sorted(map(str, set(data) - required - optional))
    if missing or unknown:
        clauses = [f"lacks {counted(len(missing), 'field')}"] if missing else []
        clauses += [f"has {counted(len(unknown), 'unknown field')}"] if unknown else []
        problem = f"{' and '.join(clauses)}."
        found = [f"  lacks {name}" for name in missing]
        names = sorted(required | optional)
        found += [f"  has {name!r}; closest: {', '.join(closest(name, names) or names)}" for name in unknown]
        raise ScheduleError(expression, problem, tuple(found), fix)
    return dict(data)
