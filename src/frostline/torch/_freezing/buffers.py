"""Buffers that were frozen or thawed by themselves, apart from the parameters of their module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from frostline._core.errors import PlanMismatchError
from frostline._core.plan import Plan
from frostline._core.selecting.buffers import deviations
from frostline._core.selecting.resolve import Chosen
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import Claim, add, ledger_of, withdraw_owner, words_of

Words = Mapping[str, bool | None]
"""Path of a buffer -> whether it is frozen by itself; None is that it goes with its module."""


def words_in(read: Survey) -> dict[str, bool]:
    """Returns what holds now for the buffers that were named by themselves."""
    words = {}
    for path, (module, name) in read.buffers.items():
        stack = ledger_of(module).get(name)
        if stack is not None and (claim := stack.latest) is not None and not claim.by_rule:
            words[path] = claim.frozen
    return words


def words_of_choice(read: Survey, chosen: Chosen, *, freezes: bool) -> dict[str, bool | None]:
    """Returns what a choice says of each buffer outside of frozen uses: the refused ones stay as they are not chosen.

    Args:
        read: the model.
        chosen: the choice.
        freezes: whether it is of a freeze, and not of a thaw.
    """
    words: dict[str, bool | None] = {path: is_chosen is freezes for path, is_chosen in chosen.buffers.items()}
    # Only what was named by itself before needs to be told that it goes with its module again.
    words |= dict.fromkeys(chosen.by_rule)
    return {path: word for path, word in words.items() if id(read.buffers[path][0]) not in read.pinned}


def claims_on_buffers(words: Words, mode: str = "eval") -> dict[Claim, frozenset[str]]:
    """Returns the claims that carry out what is said of buffers, and where they are to stand."""
    claims = {
        Claim(frozen=True, mode=mode): frozenset(path for path, word in words.items() if word),
        Claim(frozen=False): frozenset(path for path, word in words.items() if word is False),
        Claim(frozen=False, by_rule=True): frozenset(path for path, word in words.items() if word is None),
    }
    return {claim: paths for claim, paths in claims.items() if paths}


def with_buffers(read: Survey, plan: Plan, words: Words | None = None, expression: str | None = None) -> Plan:
    """Returns a plan with the buffers that deviate from it, if `words` are said as well.

    Args:
        read: the model.
        plan: the plan of its parameters.
        words: what is said of buffers.
        expression: the call that says it; without it, nothing is checked.

    Raises:
        UnsupportedError: only some buffers of a module would stand still, or move.
    """
    said = {path: word for path, word in {**words_in(read), **(words or {})}.items() if word is not None}
    still, moving = deviations(read.inventory, plan.frozen, said, expression) if said else (frozenset(), frozenset())
    return plan if (still, moving) == (plan.still, plan.moving) else replace(plan, still=still, moving=moving)


def words_of_plan(read: Survey, plan: Plan) -> dict[str, bool | None]:
    """Returns what a plan says of each buffer of a model.

    Raises:
        PlanMismatchError: the plan speaks of buffers that the model does not have.
        UnsupportedError: only some buffers of a module would stand still, or move.
    """
    if unknown := (plan.still | plan.moving) - read.buffers.keys():
        raise PlanMismatchError(unknown, ())
    words = dict.fromkeys(plan.still, True) | dict.fromkeys(plan.moving, False)
    if words:
        deviations(read.inventory, plan.frozen, words, "follow(model, plan)")
    return {path: words.get(path) for path in read.buffers if path in words or _has_claims(read, path)}


def follow_words(read: Survey, words: Words) -> None:
    """Makes buffers as a plan says, in place; a later plan replaces it."""
    for path, word in words.items():
        site = read.buffers[path]
        if id(site[0]) not in read.pinned:
            present = words_of(site[0]).get(site[1].removeprefix("."))
            mode = present.mode if present is not None and present.frozen else "eval"
            withdraw_owner([site], "follow")
            add(read.root, [site], Claim(frozen=word is True, mode=mode, owner="follow", by_rule=word is None))


def _has_claims(read: Survey, path: str) -> bool:
    module, name = read.buffers[path]
    return name in ledger_of(module)
