"""Resolving selectors in a model."""

from __future__ import annotations

from collections.abc import Sequence

from frostline._core.errors import CountError, SelectorError, TiedError
from frostline._core.inventory import Inventory
from frostline._core.selecting.expressions import Selector
from frostline._core.selecting.nearby import no_match
from frostline._core.selecting.pattern import spell
from frostline._core.selecting.selectors import glob
from frostline._core.selecting.text import selector_of
from frostline._core.selecting.verdict import Judge, Verdict


def resolve(
    selectors: Sequence[str | Selector],
    inventory: Inventory,
    *,
    expect: int | None = None,
    allow_empty: bool = False,
) -> frozenset[str]:
    """Returns the paths that `selectors` choose: the last selector that matches a name decides.

    Each string and each leaf of an expression must match something, so the typo in
    ``glob("encoder.*") | glob("typo.*")`` raises an error.

    Args:
        selectors: strings and selector values; a string with a leading "!" excludes. No selectors mean everything.
        inventory: the model.
        expect: the number of parameters that must be chosen; a tied parameter counts once, a module without parameters
            does not count.
        allow_empty: whether a selector may match nothing.

    Returns:
        Canonical paths of parameters, and of modules that are frozen by their own name.

    Raises:
        SelectorError: a selector cannot be read, or the first one excludes.
        NoMatchError: a selector matches nothing.
        UnsupportedError: a selector names rows of a parameter.
        TiedError: one name of a tensor is chosen and another is refused.
        CountError: the number of chosen parameters is not `expect`.

    Example:
        >>> from frostline._core.inventory import Inventory
        >>> from frostline._core.param import Param
        >>> params = (Param(path, (2,), "float32", 4) for path in ("body.weight", "body.bias", "head.bias"))
        >>> sorted(resolve(["**.bias", "!head"], Inventory(tuple(params))))
        ['body.bias']
    """
    paths = _chosen(selectors, inventory, Judge(inventory, allow_empty)) if selectors else inventory.paths
    if expect is not None:
        params = tuple(param.path for param in inventory.params if param.path in paths)
        if len(params) != expect:
            raise CountError(", ".join(map(repr, selectors)), expect, params)
    return paths


def _chosen(selectors: Sequence[str | Selector], inventory: Inventory, judge: Judge) -> frozenset[str]:
    _check_first(selectors)
    verdict = Verdict()
    for selector in selectors:
        verdict = _after(verdict, selector, judge)
    tree = inventory.tree
    for names in tree.tied:
        chosen, refused = verdict.chosen & set(names), verdict.refused & set(names)
        if chosen and refused:
            raise _tied(selectors, min(chosen), min(refused), judge)
    return frozenset(map(tree.paths.__getitem__, verdict.chosen))


def _check_first(selectors: Sequence[str | Selector]) -> None:
    first = selectors[0]
    if isinstance(first, str) and first.startswith("!"):
        rest = "".join(f", {selector!r}" for selector in selectors)
        problem = "takes back, and there is nothing before it to take back from."
        raise SelectorError(repr(first), problem, f'Begin with the whole model: freeze(model, "**"{rest}).')


def _takes_back(selector: str | Selector) -> bool:
    return isinstance(selector, str) and selector.startswith("!")


def _after(verdict: Verdict, selector: str | Selector, judge: Judge) -> Verdict:
    if not isinstance(selector, str | Selector):
        fix = 'Write a string, "encoder.layers[:-2]", or a value, glob("encoder") - glob("**.bias").'
        raise SelectorError(repr(selector), "is neither a string nor a selector.", fix)
    value = selector_of(selector.removeprefix("!")) if isinstance(selector, str) else selector
    if isinstance(selector, str) and isinstance(value, glob):
        own = Verdict(judge.names(value, repr(selector)))
    else:
        own = judge.verdict(value)
        if not own.chosen and not judge.allow_empty:
            raise no_match(value, repr(selector), judge.inventory)
    return verdict.without(own.chosen) if _takes_back(selector) else verdict.either(own)


def _tied(selectors: Sequence[str | Selector], chosen: int, refused: int, judge: Judge) -> TiedError:
    names = judge.inventory.tree.names
    speakers = _speaker(selectors, chosen, judge, chosen=True), _speaker(selectors, refused, judge, chosen=False)
    return TiedError((spell(names[chosen].keys), spell(names[refused].keys)), speakers)


def _speaker(selectors: Sequence[str | Selector], name: int, judge: Judge, *, chosen: bool) -> str:
    for selector in reversed(selectors):
        verdict = _after(Verdict(), selector, judge)
        if name in (verdict.chosen if chosen else verdict.refused):
            return repr(selector if isinstance(selector, str) else judge.speaker(selector, name, chosen=chosen))
    raise AssertionError("a name that is chosen or refused is so by a selector")
