"""Held modules: those all of whose parameters are frozen, with the mode that the freezes ask for."""

from __future__ import annotations

import weakref
from typing import Protocol

from torch import nn

from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import OWN_BUFFERS, Claim, ledger_of, words_of
from frostline.torch._holding.mode import hold_all


class Follower(Protocol):
    """An object that is told whenever something was frozen or thawed."""

    def sync(self) -> None:
        """Reads what is frozen now."""


_TRAINS, _MOVES, _EVAL, _FOLLOW, _BUFFERS = 1, 2, 4, 8, 16
"""A parameter trains; a buffer is to move; a frozen parameter wants its module in evaluation mode, or to follow;
there are buffers."""

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
    free = {module: mode for module, mode in modes.items() if id(module) not in survey.pinned}
    alone = {
        module: mode
        for module, present in free.items()
        if present is None and module._buffers and (mode := _buffers_mode(module)) is not None
    }
    hold_all(free | alone, alone=alone.keys())
    for follower in list(FOLLOWERS):
        follower.sync()


def _held_modes(survey: Survey) -> dict[nn.Module, str | None]:
    """Returns the mode in which the owners of each module want it held; None is not held."""
    below = _wishes(survey)
    modes: dict[nn.Module, str | None] = {}
    moving = {module for path, module in survey.modules.items() if below[path] & _MOVES}
    bare = {module for path, module in survey.modules.items() if not below[path] & _BUFFERS}
    goes_along: dict[nn.Module, list[nn.Module]] = {}
    for path, module in survey.modules.items():
        if module in modes:
            continue
        wishes = below[path]
        if (own := ledger_of(module).get(OWN_BUFFERS)) is not None:
            wishes |= _asked(own.latest)
        if wishes & _TRAINS or not wishes & (_EVAL | _FOLLOW):
            modes[module] = None
        else:
            modes[module] = "eval" if wishes & _EVAL else "follow"
        if path and modes[module] is None and not wishes & _TRAINS:
            goes_along[module] = []
    for path, module in survey.modules.items() if goes_along else ():
        if path and module in goes_along:
            goes_along[module].append(survey.modules[path.rpartition(".")[0]])
    known: set[nn.Module] = set()

    def along_with(module: nn.Module) -> list[str | None]:
        # What contains moving buffers cannot be held; dropout goes with it all the same, and other buffers do not.
        parents = goes_along[module]
        return [mode_of(parent) if module in bare or parent not in moving else None for parent in parents]

    def mode_of(module: nn.Module) -> str | None:
        if module in goes_along and module not in known:
            known.add(module)
            modes[module] = _stricter(along_with(module))
        return modes[module]

    for module in goes_along:
        mode_of(module)
    return {module: None if module in moving else mode for module, mode in modes.items()}


def _wishes(survey: Survey) -> dict[str, int]:
    """Returns what is wanted by the parameters, and said of the buffers, at and below each path."""
    wishes = dict.fromkeys(survey.modules, 0)
    for path, module in reversed(survey.modules.items()):
        found, ledger = wishes[path], ledger_of(module)
        for local, parameter in module._parameters.items():
            if parameter is None:
                continue
            if parameter.requires_grad:
                found |= _TRAINS
            elif ledger and (stack := ledger.get(local)) is not None:
                found |= _asked(stack.latest)
        if module._buffers and any(buffer is not None for buffer in module._buffers.values()):
            found |= _BUFFERS
        if ledger and module._buffers and any(not claim.frozen for claim in words_of(module).values()):
            found |= _MOVES
        wishes[path] = found
        if path:
            wishes[path.rpartition(".")[0]] |= found
    return wishes


def _asked(claim: Claim | None) -> int:
    return 0 if claim is None or not claim.frozen else _EVAL if claim.mode == "eval" else _FOLLOW


def _buffers_mode(module: nn.Module) -> str | None:
    """Returns the mode in which a module is held for the sake of its buffers, which were frozen by themselves."""
    modes: list[str | None] = [claim.mode for claim in words_of(module).values() if claim.frozen]
    return _stricter(modes) if modes else None


def _stricter(modes: list[str | None]) -> str | None:
    return None if None in modes else "eval" if "eval" in modes else "follow"
