"""Claims: which owner wants which parameter frozen, stored with the module of the parameter."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

ATTRIBUTE = "_frostline"
OWN_BUFFERS = ""

Site = tuple[nn.Module, str]
"""A module and the local name of one of its parameters, `OWN_BUFFERS`, or the name of claims on one of its buffers."""


def buffer_name(local: str) -> str:
    """Returns the name under which claims on a buffer stand; no parameter can have it."""
    return f".{local}"


def buffer_at(site: Site) -> torch.Tensor | None:
    """Returns the buffer of a site."""
    module, name = site
    return module._buffers.get(name.removeprefix("."))


class Claim:
    """One wish of one owner: that some parameters be frozen, or be trainable.

    Compared by identity, on purpose: the claims of a copied or unpickled model are other claims,
    and no handle of the original can touch them.

    Attributes:
        frozen: whether it freezes; else it thaws.
        mode: of the modules that it freezes, "eval" or "follow".
        owner: a name if a later claim of the same owner takes its place; "" is a single freeze or thaw.
        meant: whether it thaws constants, too.
        by_rule: whether it says of a buffer that it goes with the parameters of its module again.
    """

    __slots__ = ("_handle", "by_rule", "frozen", "meant", "mode", "owner")

    def __init__(
        self, *, frozen: bool, mode: str = "eval", owner: str = "", meant: bool = False, by_rule: bool = False
    ) -> None:
        self.frozen, self.mode, self.owner, self.meant, self.by_rule = frozen, mode, owner, meant, by_rule
        self._handle: weakref.ref[object] | None = None

    def belongs_to(self, handle: object) -> None:
        """Notes the object that can withdraw the claim, for as long as that object lives."""
        self._handle = weakref.ref(handle)

    @property
    def is_final(self) -> bool:
        """Whether nobody can withdraw the claim any more."""
        return not self.owner and (self._handle is None or self._handle() is None)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.frozen, self.mode, self.owner, self.meant, self.by_rule)


def _restored(  # of a pickle
    frozen: bool,  # noqa: FBT001
    mode: str,
    owner: str,
    meant: bool,  # noqa: FBT001
    by_rule: bool,  # noqa: FBT001
) -> Claim:
    return Claim(frozen=frozen, mode=mode, owner=owner, meant=meant, by_rule=by_rule)


@dataclass(eq=False)
class ClaimStack:
    """The claims on one parameter in the order in which they were made; the latest one holds.

    Attributes:
        before: ``requires_grad`` as it was before the first claim.
        claims: the claims.
        model: the model in which it was made, by a weak reference, which copies do not have.
    """

    before: bool = True
    claims: list[Claim] = field(default_factory=list)
    model: weakref.ref[nn.Module] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return ClaimStack, (self.before, self.claims)

    @property
    def latest(self) -> Claim | None:
        """The claim that holds."""
        return self.claims[-1] if self.claims else None

    @property
    def is_constant(self) -> bool:
        """Whether the parameter trained nowhere before the first claim, and no thaw has meant it since."""
        return not self.before and not any(claim.meant for claim in self.claims)

    @property
    def trains(self) -> bool:
        """Whether the parameter is to train: a thaw takes a constant back to what it was, which is no training."""
        return not self.is_constant if self.claims and not self.claims[-1].frozen else not self.claims and self.before

    def trains_without(self, owner: str) -> bool:
        """Whether the parameter would be to train without the claims of an owner."""
        others = [claim for claim in self.claims if claim.owner != owner]
        return self.trains if len(others) == len(self.claims) else ClaimStack(self.before, others).trains

    def push(self, claim: Claim) -> None:
        """Adds a claim, in place.

        A claim that nobody can withdraw hides all those of its kind below it for good. These are dropped, so that a
        freeze and a thaw in each step do not pile up.
        """
        if not self.claims:
            self.claims.append(claim)
            return
        final = [each for each in self.claims if each.is_final]
        hidden = set(map(id, final[:-1]))
        self.before = self.before or any(each.meant for each in final[:-1])
        self.claims[:] = [*(each for each in self.claims if id(each) not in hidden), claim]


SEEN = WeakIdKeyDictionary()
"""Tensor -> its `ClaimStack`, for parameters and buffers that surgery takes to another module."""

Ledger = dict[str, ClaimStack]
"""The claims on one module's own parameters, by local name.

Names and not tensors, so that claims survive deepcopy, pickle and ``assign=True``.
"""


_NONE: Ledger = {}


def ledger_of(module: nn.Module) -> Ledger:
    """Returns the claims on a module's own parameters, to be read."""
    found: Ledger = module.__dict__.get(ATTRIBUTE, _NONE)
    return found


def stack_at(module: nn.Module, local: str) -> ClaimStack:
    """Returns the claims on a parameter; if there is none, a stack with its flag as it is now."""
    parameter = module._parameters.get(local)
    return ledger_of(module).get(local) or ClaimStack(parameter is None or parameter.requires_grad)


def latest(module: nn.Module, local: str) -> Claim | None:
    """Returns the claim that holds for a parameter, if there is one."""
    stack = ledger_of(module).get(local)
    return None if stack is None else stack.latest


def words_of(module: nn.Module) -> dict[str, Claim]:
    """Returns the claims that hold for buffers of a module that were named by themselves, by local name."""
    ledger = ledger_of(module)
    if not ledger or not module._buffers:
        return {}
    words = ((local, latest(module, name)) for local in module._buffers if (name := buffer_name(local)) in ledger)
    return {local: claim for local, claim in words if claim is not None and not claim.by_rule}


def add(root: nn.Module, sites: Iterable[Site], claim: Claim) -> None:
    """Adds a claim on parameters of a model (or on modules' own buffers) and enacts it, in place."""
    sites = list(sites)
    model = weakref.ref(root)
    for module, local in sites:
        stack = stack_at(module, local)
        if stack.model is None:
            module.__dict__.setdefault(ATTRIBUTE, {})[local] = stack
            stack.model = model
            parameter = module._parameters.get(local)
            if (tensor := buffer_at((module, local)) if parameter is None else parameter) is not None:
                SEEN[tensor] = stack
        stack.push(claim)
    # Only now, because the sites of a tied parameter share the flag that was just noted.
    for module, local in sites:
        enact(module, local)


def renew(root: nn.Module, sites: Sequence[Site], *, owner: str, frozen: bool, meant: bool) -> None:
    """Lets a claim of an owner on one parameter, at all of its sites, replace an earlier one, and enacts it, in place.

    It freezes in the mode of the claim that held before.
    """
    stacks = [ledger_of(module).get(local) for module, local in sites]
    present = stacks[0].latest if stacks[0] is not None else None
    for stack in stacks:
        top = None if stack is None or stack.model is None else stack.latest
        if top is None or top.owner != owner or top.frozen is not frozen or top.meant is not meant:
            break
    else:
        for module, local in sites:
            enact(module, local)
        return
    mode = present.mode if present is not None and present.frozen else "eval"
    withdraw_owner(sites, owner)
    add(root, sites, Claim(frozen=frozen, mode=mode, owner=owner, meant=meant))


def withdraw(sites: Iterable[Site], claims: Iterable[Claim]) -> None:
    """Withdraws claims, in place; the latest of the other claims on each parameter holds."""
    unwanted = set(map(id, claims))
    for module, local in list(dict.fromkeys(sites)):
        stack = ledger_of(module).get(local)
        if stack is None:
            continue
        # Two sites may share a stack, and the other one may have been first.
        stack.claims[:] = [claim for claim in stack.claims if id(claim) not in unwanted]
        enact(module, local)
        if not stack.claims:
            drop(module, local)


def owned(sites: Iterable[Site], owner: str) -> list[Claim]:
    """Returns the claims of an owner at some sites."""
    stacks = (ledger_of(module).get(local) for module, local in sites)
    return [claim for stack in stacks if stack is not None for claim in stack.claims if claim.owner == owner]


def withdraw_owner(sites: Iterable[Site], owner: str) -> None:
    """Drops the claims of one owner, in place, and leaves flags as they are."""
    for module, local in sites:
        if (stack := ledger_of(module).get(local)) is not None:
            stack.claims[:] = [claim for claim in stack.claims if claim.owner != owner]


def drop(module: nn.Module, local: str) -> None:
    """Drops all claims on a parameter, in place, and leaves its flag as it is."""
    ledger = ledger_of(module)
    ledger.pop(local, None)
    if not ledger:
        forget(module)


def forget(module: nn.Module) -> None:
    """Drops all claims on a module's parameters, in place, and leaves their flags as they are."""
    module.__dict__.pop(ATTRIBUTE, None)


def sites_of(modules: Iterable[nn.Module], claims: Iterable[Claim]) -> Iterator[Site]:
    """Yields where in a model claims stand, wherever surgery has taken them."""
    wanted = set(map(id, claims))
    for module in modules:
        for local, stack in ledger_of(module).items():
            if not wanted.isdisjoint(map(id, stack.claims)):
                yield module, local


def enact(module: nn.Module, local: str) -> None:
    """Sets the parameter's flag in place as the claims say.

    A frozen parameter loses its gradient: optimizers look at ``.grad`` and never at the flag, so
    a stale one would go on moving it.
    """
    parameter = module._parameters.get(local)
    if parameter is None:
        return
    trains = stack_at(module, local).trains
    if parameter.requires_grad is not trains:
        parameter.requires_grad_(trains)
    if not trains:
        parameter.grad = None
