"""Freezing and thawing in place, and what is frozen as a plan, to be read or followed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from torch import nn

from frostline._core.errors import ModeError, PinnedError
from frostline._core.plan import Change, Plan
from frostline.torch._freezing.held_modules import hold_frozen_modules
from frostline.torch._freezing.selection import Choice, select, written
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._holding.claims import Claim, Site, add, latest, withdraw, withdraw_owner
from frostline.torch._holding.lbfgs import keep_lbfgs_to_trainable
from frostline.torch._holding.mode import is_held
from frostline.torch._uses.view import Mode
from frostline.torch._wrappers import refuse_wrapped


class Handle:
    """The way back from one freezing or thawing, in any order with others; also a context manager.

    Attributes:
        plan: what was frozen when the handle was made.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> with freeze(model, "0"):
        ...     model[0].weight.requires_grad
        False
        >>> model[0].weight.requires_grad
        True
    """

    def __init__(self, root: nn.Module, claim: Claim, sites: Sequence[Site], plan: Plan) -> None:
        self.plan = plan
        self._root = root
        self._claim = claim
        self._sites = sites

    def undo(self) -> None:
        """Undoes this freezing or thawing and no other, in place. Idempotent."""
        withdraw(self._sites, self._claim)
        hold_frozen_modules(survey(self._root))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()

    def __repr__(self) -> str:
        return f"Handle({self.plan!r})"


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

    Args:
        model: the model, or a part of it.
        selectors: what to freeze, read in order: paths such as ``"encoder.layers[:-2]"``,
            ``"!head"`` to take back, selector values, modules or parameters of the model. Without
            selectors, the whole model.
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
        WrappedError: the model is inside a wrapper that would ignore the change.
        UnsupportedError: rows of a tensor are selected, or a parameter is lazy.

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
    paths = select(selectors, read, expect=expect, allow_empty=allow_empty)
    return _claim(model, read, paths, Claim(frozen=True, mode=mode))


def thaw(
    model: nn.Module,
    *selectors: Choice,
    expect: int | None = None,
    allow_empty: bool = False,
) -> Handle:
    """Makes parameters of a model trainable in place, whoever froze them.

    Integer and quantised parameters are left alone, and so are frozen uses, ``Frozen(layer)``.

    Args:
        model: the model, or a part of it.
        selectors: as in :func:`freeze`; without them, the whole model.
        expect: the number of parameters that must be selected.
        allow_empty: whether a selector may match nothing.

    Returns:
        A handle that undoes this thawing and no other.

    Raises:
        PinnedError: a selector names nothing but frozen uses.
        NoMatchError, CountError, TiedError, SelectorError, WrappedError, UnsupportedError: as in
            :func:`freeze`.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> _ = freeze(model)
        >>> _ = thaw(model, "**.bias")
        >>> sorted(trainable(model))
        ['0.bias', '1.bias']
    """
    read = survey(model)
    paths = select(selectors, read, expect=expect, allow_empty=allow_empty)
    if paths and not paths - _pinned(read):
        raise PinnedError(f"thaw({written('model', selectors)})", tuple(sorted(paths)))
    return _claim(model, read, paths, Claim(frozen=False, mode="eval"))


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


def follow(model: nn.Module, plan: Plan) -> Change:
    """Freezes and thaws a model in place, until it is as a plan says; a later call replaces this one.

    Args:
        model: the model that the plan is for.
        plan: the parameters that are to be frozen, and those that are to train.

    Returns:
        The change: the paths that were frozen and those that were thawed.

    Raises:
        PlanMismatchError: the paths of the plan are not those of the model.
        PinnedError: the plan wants to train a frozen use.
        WrappedError: the model is inside a wrapper that would ignore the change.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> change = follow(model, plan(model).freeze({"0.weight"}))
        >>> change.freeze
        frozenset({'0.weight'})
    """
    read = survey(model)
    # From the plan, so that an error says which side lacks what.
    change = plan.change_to(plan_of(read)).inverse()
    if pinned := change.thaw & _pinned(read):
        raise PinnedError("follow(model, plan)", tuple(sorted(pinned)))
    if change:
        refuse_wrapped(model)
    keep_lbfgs_to_trainable()
    for path in read.inventory.paths:
        sites = _free_sites(read, [path])
        present = latest(*sites[0]) if sites else None
        mode = present.mode if present is not None and present.frozen else "eval"
        withdraw_owner(sites, "follow")
        add(sites, Claim(frozen=path in plan.frozen, mode=mode, owner="follow"))
    hold_frozen_modules(read)
    return change


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
    for path in read.inventory.paths:
        module, parameter = read.sites[path][0][0], read.parameters.get(path)
        stands = is_held(module) if parameter is None else not parameter.requires_grad
        (frozen_paths if stands or id(module) in read.pinned else trainable_paths).add(path)
    return Plan(frozen=frozenset(frozen_paths), trainable=frozenset(trainable_paths))


def _pinned(read: Survey) -> frozenset[str]:
    return frozenset(p for p, sites in read.sites.items() if id(sites[0][0]) in read.pinned)


def _free_sites(read: Survey, paths: Iterable[str]) -> list[Site]:
    return [site for p in paths for site in read.sites[p] if id(site[0]) not in read.pinned]


def _claim(model: nn.Module, read: Survey, paths: frozenset[str], claim: Claim) -> Handle:
    before = plan_of(read)
    after = before.freeze(paths) if claim.frozen else before.thaw(paths - _pinned(read))
    if after != before:
        refuse_wrapped(model)
    sites = _free_sites(read, paths)
    keep_lbfgs_to_trainable()
    add(sites, claim)
    hold_frozen_modules(read)
    return Handle(read.root, claim, sites, after)
