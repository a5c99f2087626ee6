"""Freeze and thaw a model in place, and read or follow what is frozen as a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from torch import nn

from frostline._core.errors import ModeError, PinnedError
from frostline._core.plan import Change, Plan
from frostline.torch._freezing.held_modules import settle
from frostline.torch._freezing.selection import Choice, select, written
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._holding.claims import Claim, Site, add, latest, withdraw, withdraw_owner
from frostline.torch._holding.lbfgs import keep_lbfgs_to_trainable
from frostline.torch._holding.mode import is_held
from frostline.torch._uses.view import Mode
from frostline.torch._wrappers import refuse_wrapped


class Handle:
    """Undoes just one freezing or thawing, in any order with others; also a context manager.

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
        """Takes this freezing or thawing back, in place; what others claimed stays. Idempotent."""
        withdraw(self._sites, self._claim)
        settle(survey(self._root))

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
    """Freezes parameters of a model in place, and holds modules that are frozen whole.

    A frozen parameter does not require a gradient and has none. A module all of whose parameters
    are frozen is held: it stays in evaluation mode through any ``train()``, and its buffers do
    not move. No module or parameter is replaced, so an optimizer made before stays right.

    Args:
        model: the model, or a part of it.
        selectors: what to freeze, read in order: paths such as ``"encoder.layers[:-2]"``,
            ``"!head"`` to take back, selector values, modules or parameters of the model. None
            means the whole model.
        mode: ``"eval"`` holds frozen modules in evaluation mode; ``"follow"`` lets them follow
            ``train()`` and ``eval()``, and still moves nothing in them.
        expect: how many parameters must be selected.
        allow_empty: whether a selector may match nothing.

    Returns:
        A handle that undoes this freezing and no other.

    Raises:
        NoMatchError: a selector matches nothing.
        CountError: another number of parameters than `expect` is selected.
        TiedError: one name of a tensor is chosen and another refused.
        SelectorError: a selector cannot be read.
        ModeError: `mode` is neither of the two.
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
        selectors: as in :func:`freeze`. None means the whole model.
        expect: how many parameters must be selected.
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
    """What is frozen in a model, as a value.

    A parameter is frozen when it does not require a gradient, whoever saw to that. A module with
    buffers and no parameters is frozen when it is held.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        >>> _ = freeze(model, "0")
        >>> plan(model).frozen == {"0.weight", "0.bias"}
        True
    """
    return plan_of(survey(model))


def follow(model: nn.Module, plan: Plan) -> Change:
    """Makes a model frozen as a plan says, in place; a later call takes the place of this one.

    Args:
        model: the model that the plan speaks of.
        plan: what is to be frozen, and what trainable.

    Returns:
        What was frozen and what was thawed.

    Raises:
        PlanMismatchError: the plan speaks of other paths than the model has.
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
    if change.thaw & _pinned(read):
        raise PinnedError("follow(model, plan)", tuple(sorted(change.thaw & _pinned(read))))
    if change:
        refuse_wrapped(model)
    _enact(read, plan)
    return change


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by path: what an optimizer should get.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), Frozen(nn.Linear(8, 2)))
        >>> sorted(trainable(model))
        ['0.bias', '0.weight']
    """
    read = survey(model)
    paths = plan_of(read).trainable
    return {path: parameter for path, parameter in read.parameters.items() if path in paths}


def frozen(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training does not move, by path; with `trainable`, all there are.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), Frozen(nn.Linear(8, 2)))
        >>> sorted(frozen(model))
        ['1.bias', '1.weight']
    """
    read = survey(model)
    paths = plan_of(read).frozen
    return {path: parameter for path, parameter in read.parameters.items() if path in paths}


def plan_of(read: Survey) -> Plan:
    """The plan of a model that has been read."""
    paths = read.inventory.paths
    frozen_paths = {p for p in paths if _is_frozen(read, p)}
    return Plan(frozen=frozenset(frozen_paths), trainable=frozenset(paths - frozen_paths))


def _is_frozen(read: Survey, path: str) -> bool:
    parameter = read.parameters.get(path)
    module = read.sites[path][0][0]
    if parameter is None:
        return id(module) in read.pinned or is_held(module)
    return id(module) in read.pinned or not parameter.requires_grad


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
    settle(read)
    return Handle(read.root, claim, sites, after)


def _enact(read: Survey, plan: Plan) -> None:
    keep_lbfgs_to_trainable()
    for path in read.inventory.paths:
        sites = _free_sites(read, [path])
        present = latest(*sites[0]) if sites else None
        mode = present.mode if present is not None and present.frozen else "eval"
        withdraw_owner(sites, "follow")
        add(sites, Claim(frozen=path in plan.frozen, mode=mode, owner="follow"))
    settle(read)
