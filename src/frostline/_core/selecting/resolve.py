"""Resolving selectors in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import final

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
    paths = _paths(selectors, Judge(inventory, allow_empty)) if selectors else inventory.paths
    _check_count(selectors, inventory, paths, expect)
    return paths


@final
@dataclass(frozen=True, slots=True)
class Chosen:
    """What selectors choose in a model that has buffers.

    Attributes:
        paths: as :func:`resolve` returns them.
        buffers: buffers that are named by themselves: whether each is chosen, or refused.
        by_rule: those of the buffers that were named before which a selector matches otherwise: they go with the
            parameters of their module.
    """

    paths: frozenset[str]
    buffers: Mapping[str, bool]
    by_rule: frozenset[str]


def choose(
    selectors: Sequence[str | Selector],
    inventory: Inventory,
    *,
    expect: int | None = None,
    allow_empty: bool = False,
    named_before: AbstractSet[str] = frozenset(),
) -> Chosen:
    """Returns what `selectors` choose, as :func:`resolve` does, and what they say about buffers.

    A string or a leaf that matches buffers and no parameter, such as ``"**.running_mean"``, speaks of these buffers
    alone. Every other one takes buffers along with their module, and an earlier word about them is void.

    Args:
        selectors: as for :func:`resolve`.
        inventory: the model.
        expect: as for :func:`resolve`; buffers do not count.
        allow_empty: as for :func:`resolve`.
        named_before: buffers that were named by themselves in earlier calls.

    Raises:
        SelectorError, NoMatchError, UnsupportedError, TiedError, CountError: as :func:`resolve` does.
    """
    words: dict[str, bool] = {}
    paths, by_rule = inventory.paths, frozenset(named_before)
    if selectors:
        judge = Judge(inventory, allow_empty, with_buffers=True)
        paths = _paths(selectors, judge)
        # Most selectors speak of parameters, and there is nothing to be said of buffers.
        if inventory.buffers and (named_before or judge.has_empty_leaf):
            words, by_rule = _words(selectors, judge)
            by_rule &= named_before
    _check_count(selectors, inventory, paths, expect)
    if not words:
        return Chosen(paths, words, by_rule)
    # A module without parameters has a name of its own, and its buffers are what that name means.
    own: dict[str, set[bool | None]] = {}
    for buffer in inventory.buffers:
        if not buffer.goes_along:
            own.setdefault(buffer.owner, set()).add(words.get(buffer.path))
    alone = {
        module.path for module in inventory.modules if module.stateful and own.get(module.path) in ({True}, {False})
    }
    paths = (paths - alone) | {path for path in alone if own[path] == {True}}
    words = {path: is_chosen for path, is_chosen in words.items() if path.rpartition(".")[0] not in alone}
    return Chosen(paths, words, by_rule)


def _words(selectors: Sequence[str | Selector], judge: Judge) -> tuple[dict[str, bool], frozenset[str]]:
    words: dict[int, bool] = {}
    by_rule: set[int] = set()
    for selector in selectors:
        text = selector.removeprefix("!") if isinstance(selector, str) else selector
        said = judge.buffers(selector_of(text) if isinstance(text, str) else text)
        said = said.inverted() if _takes_back(selector) else said
        words = {name: is_chosen for name, is_chosen in words.items() if name not in said.by_rule}
        words |= dict.fromkeys(said.chosen, True) | dict.fromkeys(said.refused, False)
        by_rule = (by_rule | said.by_rule) - words.keys()
    paths = judge.inventory.of_buffers.tree.paths
    return {paths[name]: is_chosen for name, is_chosen in words.items()}, frozenset(paths[name] for name in by_rule)


def _check_count(
    selectors: Sequence[str | Selector], inventory: Inventory, paths: frozenset[str], expect: int | None
) -> None:
    if expect is None:
        return
    params = tuple(param.path for param in inventory.params if param.path in paths)
    if len(params) != expect:
        raise CountError(", ".join(map(repr, selectors)), expect, params)


def _paths(selectors: Sequence[str | Selector], judge: Judge) -> frozenset[str]:
    _check_first(selectors)
    verdict = Verdict()
    for selector in selectors:
        verdict = _after(verdict, selector, judge)
    tree = judge.inventory.tree
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
        if not own.chosen and not judge.allow_empty and not (judge.with_buffers and judge.buffers(value).chosen):
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
