"""Which modules are frozen whole, and are therefore held still."""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Protocol

from torch import nn

from frostline.torch._freezing.survey import Survey, is_trained
from frostline.torch._holding import mode as _hold
from frostline.torch._holding.claims import OWN_BUFFERS, Claim, latest


class Follower(Protocol):
    """What is to know when something was frozen or thawed."""

    def sync(self) -> None:
        """Looks at what is frozen now."""


FOLLOWERS: weakref.WeakSet[Follower] = weakref.WeakSet()


def settle(survey: Survey) -> None:
    """Holds every module that is frozen whole and releases every other one, in place.

    A module is frozen when every parameter below it is, and there is one, and a claim says so; a
    module with nothing to train goes with the modules that contain it, if all of them are held.
    Those who follow, as bound optimizers do, are told.
    """
    modes = held_modes(survey)
    for module in dict.fromkeys(survey.modules.values()):
        if id(module) in survey.pinned:
            continue
        if module in modes:
            _hold.hold(module, modes[module])
        else:
            _hold.release(module)
    for follower in list(FOLLOWERS):
        follower.sync()


def held_modes(survey: Survey) -> dict[nn.Module, str]:
    """The modules to hold, each with the mode in which its owners want it."""
    parents = _parents(survey)
    modes: dict[nn.Module, str | None] = {}

    def mode_of(module: nn.Module) -> str | None:
        if module not in modes:
            own = _own_mode(module)
            goes_along = own is None and parents[module] and not _has_trainable(module)
            containers = [mode_of(parent) for parent in parents[module]] if goes_along else [own]
            modes[module] = None if None in containers else "eval" if "eval" in containers else "follow"
        return modes[module]

    found = {module: mode_of(module) for module in survey.modules.values()}
    return {module: mode for module, mode in found.items() if mode is not None}


def _own_mode(module: nn.Module) -> str | None:
    """The mode in which the module's parameters, or its own buffers, want it held."""
    buffers = latest(module, OWN_BUFFERS)
    claims = [buffers] if buffers is not None else []
    for inner in module.modules():
        for local, parameter in inner._parameters.items():
            if parameter is None or not is_trained(parameter):
                continue
            if parameter.requires_grad:
                return None
            claim = latest(inner, local)
            claims += [claim] if claim is not None else []
    return _agreed(claims)


def _agreed(claims: list[Claim]) -> str | None:
    modes = {claim.mode for claim in claims if claim.frozen}
    if not modes:
        return None
    return "eval" if "eval" in modes else "follow"


def _has_trainable(module: nn.Module) -> bool:
    return any(is_trained(p) and p.requires_grad for p in module.parameters())


def _parents(survey: Survey) -> dict[nn.Module, list[nn.Module]]:
    parents: dict[nn.Module, list[nn.Module]] = defaultdict(list)
    for path, module in survey.modules.items():
        if path:
            parents[module].append(survey.modules[path.rpartition(".")[0]])
    return parents
