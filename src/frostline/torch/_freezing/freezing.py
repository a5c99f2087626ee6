"""Freezing and thawing in place, and what is frozen as a plan, to be read or followed."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from torch import nn

from frostline._core.errors import ModeError, PinnedError
from frostline._core.plan import Change, Plan
from frostline.torch._freezing.buffers import (
    claims_on_buffers,
    follow_words,
    with_buffers,
    words_of_choice,
    words_of_plan,
)
from frostline.torch._freezing.constants import check_any_left, constants_among
from frostline.torch._freezing.handle import Handle
from frostline.torch._freezing.held_modules import hold_frozen_modules
from frostline.torch._freezing.selection import Choice, chosen, flat, named_by, written
from frostline.torch._freezing.standing import Standing
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._freezing.wrapped import check_wrapped
from frostline.torch._holding.claims import Claim, add, owned, renew, withdraw
from frostline.torch._holding.lbfgs import keep_lbfgs_to_trainable
from frostline.torch._holding.mode import is_held
from frostline.torch._holding.moved_claims import note_parametrized, settle
from frostline.torch._holding.thaws import thaws_noted
from frostline.torch._uses.counterparts import Mode


def freeze(
    model: nn.Module,
    *selectors: Choice,
    mode: Mode = "eval",
    expect: int | None = None,
    allow_empty: bool = False,
) -> Handle:
    """Freezes parameters of a model in place, and holds modules all of whose parameters are frozen.

    A frozen parameter does not require a gradient and has none. A held module stays in evaluation
    mode through any ``train()``, and its buffers do not move. No module or parameter is replaced,
    so an optimizer that was made before stays right.

    A pattern that names buffers and no parameter speaks of them alone. ``"**.running_{mean,var}"``
    holds the statistics of norms whose scale and shift train, and ``"bn", "!bn.running_*"`` freezes
    scale and shift while the statistics adapt.

    Args:
        model: the model, or a part of it.
        selectors: what to freeze, read in order: paths such as ``"encoder.layers[:-2]"``,
            ``"!head"`` to take back, selector values, modules or parameters of the model, or lists
            of these. Without selectors, the whole model.
        mode: ``"eval"`` holds frozen modules in evaluation mode; ``"follow"`` lets them follow
            ``train()`` and ``eval()``, and still moves nothing in them.
        expect: the number of parameters that must be selected.
        allow_empty: whether a selector may match nothing.

    Returns:
        A handle that undoes this freezing and no other.

    Raises:
        NoMatchError: a selector matches nothing.
        CountError: the number of selected parameters is not `expect`.
        TiedError: one name of a tensor is chosen and another refused.
        SelectorError: a selector cannot be read.
        ModeError: `mode` is neither "eval" nor "follow".
        WrappedError: the model is inside a wrapper that would ignore the change; see :func:`rewrap`.
        RankError: another rank makes another change, inside of a wrapper that follows.
        UnsupportedError: rows of a tensor are selected, only some buffers of a module are named, or
            a parameter is lazy.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        >>> handle = freeze(model, "[:-1]")
        >>> sorted(trainable(model))
        ['2.bias', '2.weight']
        >>> handle.undo()
        >>> len(trainable(model))
        6
    """
    if mode not in ("eval", "follow"):
        raise ModeError(mode)
    read = survey(model)
    choices = flat(selectors)
    taken = chosen(choices, read, expect=expect, allow_empty=allow_empty)
    words = words_of_choice(read, taken, freezes=True)
    settle(read.modules.values())
    after = with_buffers(read, plan_of(read).freeze(taken.paths), words, f"freeze({written('model', choices)})")
    claims = {Claim(frozen=True, mode=mode): taken.paths, **claims_on_buffers(words, mode)}
    return _claim(model, read, f"freeze({written('model', choices)})", after, claims)


def thaw(
    model: nn.Module,
    *selectors: Choice,
    expect: int | None = None,
    allow_empty: bool = False,
    constants: bool = False,
) -> Handle:
    """Makes parameters of a model trainable in place, whoever froze them.

    Constants are taken back to what they were: parameters that did not require a gradient before they were first
    frozen here, such as a table of positions, or what was frozen by hand. A constant that is named by its own path, or
    as an object, is meant and thawed. Integer parameters and frozen uses, ``Frozen(layer)``, are left alone.

    Args:
        model: the model, or a part of it.
        selectors: as in :func:`freeze`; without them, the whole model.
        expect: the number of parameters that must be selected.
        allow_empty: whether a selector may match nothing.
        constants: whether to thaw constants, too.

    Returns:
        A handle that undoes this thawing and no other.

    Raises:
        PinnedError: a selector names nothing but frozen uses.
        ConstantError: all that is selected is constant, or can never train.
        NoMatchError, CountError, TiedError, SelectorError, WrappedError, RankError, UnsupportedError: as in
            :func:`freeze`.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> _ = freeze(model)
        >>> _ = thaw(model, "**.bias")
        >>> sorted(trainable(model))
        ['0.bias', '1.bias']
    """
    read, choices = survey(model), flat(selectors)
    taken = chosen(choices, read, expect=expect, allow_empty=allow_empty)
    words = words_of_choice(read, taken, freezes=False)
    free = taken.paths - read.pinned_paths
    expression = f"thaw({written('model', choices)}"
    if (named := taken.paths.union(taken.buffers)) and not free and not words:
        raise PinnedError(f"{expression})", tuple(sorted(named)))
    settle(read.modules.values())
    meant = free if constants else free & named_by(choices, read)
    left = constants_among(read, free - meant) | constants_among(read, meant, integers_only=True)
    check_any_left(expression, read, free, left)
    claims = {Claim(frozen=False, meant=True): meant - left, Claim(frozen=False): free - meant}
    after = with_buffers(read, plan_of(read).thaw(free - left), words, f"{expression})")
    return _claim(model, read, f"{expression})", after, claims | claims_on_buffers(words))


def plan(model: nn.Module) -> Plan:
    """Returns what is frozen in a model, as a value.

    A parameter is frozen when it does not require a gradient, whoever froze it. A module with
    buffers and no parameters is frozen when it is held.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> _ = freeze(model, "0")
        >>> plan(model).frozen == {"0.weight", "0.bias"}
        True
    """
    return plan_of(survey(model))


def follow(model: nn.Module, plan: Plan, *, constants: bool = False) -> Change:
    """Freezes and thaws a model in place, until it is as a plan says; a later call replaces this one.

    Constants that the plan would thaw are left alone, as :func:`thaw` leaves them.

    Args:
        model: the model that the plan is for.
        plan: the parameters that are to be frozen, and those that are to train.
        constants: whether to thaw constants, too, where the plan says so.

    Returns:
        The change: the paths that were frozen and those that were thawed.

    Raises:
        PlanMismatchError: the paths of the plan are not those of the model.
        PinnedError: the plan wants to train a frozen use.
        WrappedError, RankError: as in :func:`freeze`.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> change = follow(model, plan(model).freeze({"0.weight"}))
        >>> change.freeze
        frozenset({'0.weight'})
    """
    return follow_plan(model, survey(model), plan, constants=constants)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that training moves, by path: those that an optimizer should get.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), Frozen(nn.Linear(8, 2)))
        >>> sorted(trainable(model))
        ['0.bias', '0.weight']
    """
    read = survey(model)
    paths = plan_of(read).trainable
    return {path: parameter for path, parameter in read.parameters.items() if path in paths}


def frozen(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that training does not move, by path; with `trainable`, these are all.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), Frozen(nn.Linear(8, 2)))
        >>> sorted(frozen(model))
        ['1.bias', '1.weight']
    """
    read = survey(model)
    paths = plan_of(read).frozen
    return {path: parameter for path, parameter in read.parameters.items() if path in paths}


def plan_of(read: Survey) -> Plan:
    """Returns the plan of a model that has been read."""
    frozen_paths: set[str] = set()
    trainable_paths: set[str] = set()
    for path, ((module, _), *_) in read.sites.items():
        parameter = read.parameters.get(path)
        stands = is_held(module) if parameter is None else not parameter.requires_grad
        (frozen_paths if stands or id(module) in read.pinned else trainable_paths).add(path)
    return with_buffers(read, Plan(frozen=frozenset(frozen_paths), trainable=frozenset(trainable_paths)))


def follow_plan(
    model: nn.Module,
    read: Survey,
    plan: Plan,
    *,
    constants: bool = False,
    unclaimed: AbstractSet[str] = frozenset(),
) -> Change:
    """Does what :func:`follow` does, with a model that has been read.

    Args:
        model: the model.
        read: the same model.
        plan: the plan.
        constants: as there.
        unclaimed: frozen paths of the plan that stay frozen for the sake of others alone: of an earlier freeze, which
            can be undone, or of a flag from before.
    """
    # From the plan, so that an error says which side lacks what.
    change = plan.change_to(plan_of(read)).inverse()
    if pinned := change.thaw & read.pinned_paths:
        raise PinnedError("follow(model, plan)", tuple(sorted(pinned)))
    words = words_of_plan(read, plan)
    settle(read.modules.values())
    left = constants_among(read, plan.trainable, integers_only=constants)
    change = plan.change_to(plan_of(read)).inverse()
    change = replace(change, thaw=change.thaw - left)
    flags = dict.fromkeys(change.freeze, False) | dict.fromkeys(change.thaw, True)
    check_wrapped(model, read, "follow(model, plan)", {p: flag for p, flag in flags.items() if p in read.parameters})
    keep_lbfgs_to_trainable()
    standing = Standing.of(read)
    try:
        _follow(read, plan, left, unclaimed)
        follow_words(read, words)
        note_parametrized(read.modules.values())
        hold_frozen_modules(read)
    except BaseException:  # an interrupt, or a train() of a module's own that fails
        standing.restore()
        raise
    return change


def _follow(read: Survey, plan: Plan, left: AbstractSet[str], unclaimed: AbstractSet[str]) -> None:
    meant = plan.trainable - left
    with thaws_noted(read.parameters.values()):
        for path in read.sites:
            sites = read.free_sites([path])
            if path in unclaimed:
                withdraw(sites, owned(sites, "follow"))
            elif sites:
                renew(read.root, sites, owner="follow", frozen=path in plan.frozen, meant=path in meant)


def _claim(model: nn.Module, read: Survey, call: str, after: Plan, claims: Mapping[Claim, frozenset[str]]) -> Handle:
    check_wrapped(model, read, call, {p: p not in after.frozen for p in read.parameters.keys() - read.pinned_paths})
    sites = {claim: read.free_sites(paths) for claim, paths in claims.items()}
    keep_lbfgs_to_trainable()
    standing = Standing.of(read)
    try:
        with thaws_noted(read.parameters.values()):
            for claim, places in sites.items():
                add(read.root, places, claim)
        note_parametrized(read.modules.values())
        hold_frozen_modules(read)
        return Handle(read.root, sites, after)
    except BaseException:  # an interrupt, or a train() of a module's own that fails
        standing.restore()
        raise
