"""Selectors as text: a pattern, or the source of a selector value."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from frostline._core.errors import SelectorError
from frostline._core.param import Param
from frostline._core.selecting.expressions import Complement, Difference, Intersection, Selector, Union
from frostline._core.selecting.selectors import everything, glob, of_type, own, regex, where

# No pattern has a parenthesis, a space or an operator outside of quotes.
_SOURCE = re.compile(r"[(~\s]*(?:(?:glob|of_type|own|regex|where)\s*\(|everything\s*(?:$|\s|[|&)]))")
_CALLS: dict[str, Callable[..., Selector]] = {
    "glob": glob,
    "of_type": of_type,
    "own": own,
    "regex": regex,
    "where": where,
}
_OPERATORS: dict[type[ast.operator], Callable[[Selector, Selector], Selector]] = {
    ast.BitOr: Union,
    ast.BitAnd: Intersection,
    ast.Sub: Difference,
}


@lru_cache(maxsize=4096)
def selector_of(text: str) -> Selector:
    """The selector that a text stands for, without a leading "!".

    Raises:
        SelectorError: it can be read neither as a pattern nor as the source of a selector.

    Example:
        >>> selector_of("encoder.layers[:-2]")
        glob('encoder.layers[:-2]')
        >>> selector_of("of_type('LayerNorm') - glob('head')")
        of_type('LayerNorm') - glob('head')
    """
    if text == "everything" or not _SOURCE.match(text):
        return glob(text)
    try:
        return _read(ast.parse(text.strip(), mode="eval").body, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, SelectorError):
            raise
        raise SelectorError(repr(text), "begins as the source of a selector and cannot be read.", _FIX) from error


_FIX = "Write it as in Python: \"of_type('LayerNorm') - glob('head')\", or \"regex('.*bias') | own('encoder')\"."


def _read(node: ast.expr, text: str) -> Selector:
    match node:
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            return _OPERATORS[type(operator)](_read(left, text), _read(right, text))
        case ast.UnaryOp(ast.Invert(), inner):
            return ~_read(inner, text)
        case ast.Name("everything"):
            return everything
        case ast.Call(ast.Name(name), arguments, []) if name in _CALLS:
            values = [each.value for each in arguments if isinstance(each, ast.Constant)]
            if len(values) == len(arguments) and (len(values) == 1 or name == "of_type"):
                return _CALLS[name](*values)
    raise SelectorError(repr(text), f"holds {ast.unparse(node)}, which is no selector in a text.", _FIX)


def text_of(selector: Selector) -> str:
    """The text that stands for a selector: classes and functions are written by their names.

    Raises:
        SelectorError: a function in it cannot be imported by its name, or it holds an object of a model.

    Example:
        >>> text_of(regex(r".*bias") | glob("head")), text_of(glob("head")), text_of(of_type(dict))
        ("regex('.*bias') | glob('head')", 'head', "of_type('builtins.dict')")
    """
    if isinstance(selector, glob):
        return selector.pattern
    return "**" if selector == everything else repr(_by_name(selector))


def _by_name(selector: Selector) -> Selector:
    match selector:
        case Union(left, right) | Intersection(left, right) | Difference(left, right):
            return replace(selector, left=_by_name(left), right=_by_name(right))
        case Complement(inner):
            return Complement(_by_name(inner))
        case of_type(classes):
            return of_type(*(each if isinstance(each, str) else _full_name(each) for each in classes))
        case where(predicate) if not isinstance(predicate, str):
            return where(_importable(predicate))
        case glob() | regex() | own() | where():
            return selector
    if selector == everything:
        return selector
    raise SelectorError(repr(selector), "is an object of a model, and has no text.", "Write its path instead.")


def _full_name(owner: type) -> str:
    return f"{owner.__module__}.{owner.__qualname__}"


def _importable(function: Callable[[Param], object]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found: object = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not function:
        fix = 'Define it with def at the top of a module, and write where("my.module:name").'
        raise SelectorError(repr(where(function)), "has no name by which it can be imported.", fix)
    return f"{module}:{name}"
