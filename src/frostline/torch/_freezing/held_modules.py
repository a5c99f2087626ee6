"""Held modules: those all of whose parameters are frozen, with the mode that the freezes ask for."""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Protocol

from torch import nn

from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import OWN_BUFFERS, latest, words_of
from frostline.torch._holding.mode import hold_all


class Follower(Protocol):
    """An object that is told whenever something was frozen or thawed."""

    def sync(self) -> None:
        """Reads what is frozen now."""


FOLLOWERS: weakref.WeakSet[Follower] = weakref.WeakSet()


def hold_frozen_modules(survey: Survey) -> None:
    """Holds every module that is frozen as a whole and releases every other one, in place.

    A module is frozen when every parameter below it is, and there is one, and a claim says so; a
    module with nothing to train goes with the modules that contain it, if all of them are held.
    A module whose buffers were frozen by themselves is held by itself, whatever trains in it, and
    one whose buffers were thawed by themselves is not held, nor is what contains it; dropout in there
    is held. Followers, such as bound optimizers, are told.
    """
    modes = _held_modes(survey)
    free = [module for module in dict.fromkeys(survey.modules.values()) if id(module) not in survey.pinned]
    alone = {module: mode for module in free if modes[module] is None and (mode := _buffers_mode(module)) is not None}
    hold_all({module: modes[module] for module in free} | alone, alone=alone.keys())
    for follower in list(FOLLOWERS):
        follower.sync()


def _held_modes(survey: Survey) -> dict[nn.Module, str | None]:
    """Returns the mode in which the owners of each module want it held; None is not held."""
    parents: dict[nn.Module, list[nn.Module]] = defaultdict(list)
    for path, module in survey.modules.items():
        if path:
            parents[module].append(survey.modules[path.rpartition(".")[0]])
    modes: dict[nn.Module, str | None] = {}
    moving = _around_moving_buffers(survey)

    def along_with(module: nn.Module) -> list[str | None]:
        # What contains moving buffers cannot be held; dropout goes with it all the same, and other buffers do not.
        is_bare = next(module.buffers(), None) is None
        return [mode_of(parent) if is_bare or parent not in moving else None for parent in parents[module]]

    def mode_of(module: nn.Module) -> str | None:
        if module not in modes:
            own = _own_mode(module)
            goes_along = own is None and parents[module] and not any(p.requires_grad for p in module.parameters())
            modes[module] = _stricter(along_with(module) if goes_along else [own])
        return modes[module]

    return {module: None if module in moving else mode_of(module) for module in survey.modules.values()}


def _around_moving_buffers(survey: Survey) -> set[nn.Module]:
    """Returns the modules whose buffers were thawed by themselves, and those that contain them."""
    around: set[nn.Module] = set()
    for path, module in survey.modules.items():
        if any(not claim.frozen for claim in words_of(module).values()):
            keys = path.split(".")
            around.update(survey.modules[".".join(keys[:depth])] for depth in range(len(keys) + 1))
    return around


def _own_mode(module: nn.Module) -> str | None:
    """Returns the mode in which the module's parameters, or its own buffers, want it held."""
    claims = [latest(module, OWN_BUFFERS)]
    for inner in module.modules():
        for local, parameter in inner._parameters.items():
            if parameter is None:
                continue
            if parameter.requires_grad:
                return None
            claims.append(latest(inner, local))
    modes: list[str | None] = [claim.mode for claim in claims if claim is not None and claim.frozen]
    return _stricter(modes) if modes else None


def _buffers_mode(module: nn.Module) -> str | None:
    """Returns the mode in which a module is held for the sake of its buffers, which were frozen by themselves."""
    modes: list[str | None] = [claim.mode for claim in words_of(module).values() if claim.frozen]
    return _stricter(modes) if modes else None


def _stricter(modes: list[str | None]) -> str | None:
    return None if None in modes else "eval" if "eval" in modes else "follow"
