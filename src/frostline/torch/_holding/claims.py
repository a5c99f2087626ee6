"""Who wants what frozen: claims, stored with the module that owns the parameter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

ATTRIBUTE = "_frostline"
OWN_BUFFERS = ""

Site = tuple[nn.Module, str]
"""A module and the local name of one of its parameters, or `OWN_BUFFERS`."""


class Claim:
    """One wish of one owner: that some parameters be frozen, or be trainable.

    Compared by identity, on purpose: the claims of a copied or unpickled model are other claims,
    and no handle of the original can touch them.
    """

    __slots__ = ("frozen", "mode", "owner")

    def __init__(self, *, frozen: bool, mode: str, owner: str = "") -> None:
        self.frozen = frozen
        self.mode = mode
        self.owner = owner


@dataclass
class Claims:
    """The claims on one module's own parameters, by local name; the latest one holds.

    Names and not tensors, so that claims survive deepcopy, pickle and ``assign=True``.

    Attributes:
        of: local name -> claims in the order in which they were made.
        before: local name -> ``requires_grad`` as it was before the first claim.
    """

    of: dict[str, list[Claim]] = field(default_factory=dict)
    before: dict[str, bool] = field(default_factory=dict)


def add(sites: Iterable[Site], claim: Claim) -> None:
    """Adds a claim on parameters (or on modules' own buffers) and enacts it, in place."""
    sites = list(sites)
    for module, local in sites:
        claims = module.__dict__.setdefault(ATTRIBUTE, Claims())
        parameter = module._parameters.get(local)
        if parameter is not None:
            claims.before.setdefault(local, parameter.requires_grad)
        claims.of.setdefault(local, []).append(claim)
    # Only now, because the sites of a tied parameter share the flag that was just noted.
    for module, local in sites:
        _enact(module, local)


def withdraw(sites: Iterable[Site], claim: Claim) -> None:
    """Withdraws a claim, in place; the latest of the other claims holds."""
    for module, local in sites:
        claims = module.__dict__.get(ATTRIBUTE)
        if claims is None or local not in claims.of:
            continue
        claims.of[local] = [c for c in claims.of[local] if c is not claim]
        _enact(module, local)
        if not claims.of[local]:
            del claims.of[local]
            claims.before.pop(local, None)
        if not claims.of:
            del module.__dict__[ATTRIBUTE]


def withdraw_owner(sites: Iterable[Site], owner: str) -> None:
    """Forgets the claims of one owner, in place, without enacting what then holds."""
    for module, local in sites:
        claims = module.__dict__.get(ATTRIBUTE)
        if claims is not None and local in claims.of:
            claims.of[local] = [c for c in claims.of[local] if c.owner != owner]


def forget(module: nn.Module) -> None:
    """Drops all claims on a module's parameters, in place, and leaves their flags as they are."""
    module.__dict__.pop(ATTRIBUTE, None)


def latest(module: nn.Module, local: str) -> Claim | None:
    """Returns the claim that holds for a parameter, if there is one."""
    claims = module.__dict__.get(ATTRIBUTE)
    present = claims.of.get(local) if claims else None
    return present[-1] if present else None


def _enact(module: nn.Module, local: str) -> None:
    """Sets the parameter's flag to what holds now.

    A frozen parameter loses its gradient: optimizers look at ``.grad`` and never at the flag, so
    a stale one would go on moving it.
    """
    parameter = module._parameters.get(local)
    if parameter is None:
        return
    claim = latest(module, local)
    trainable = module.__dict__[ATTRIBUTE].before[local] if claim is None else not claim.frozen
    parameter.requires_grad_(trainable)
    if not trainable:
        parameter.grad = None
