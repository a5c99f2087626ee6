"""The mode of a held module: it does not change while the module is frozen."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from frostline.torch._holding.backup import is_covered
from frostline.torch._holding.calls import checkpoints_activations, held_methods, needs_held_calls
from frostline.torch._holding.claims import OWN_BUFFERS, latest, words_of
from frostline.torch._holding.classes import (
    HOLD,
    WRITABLE,
    WRITABLE_IN_BACKWARD,
    Hold,
    Method,
    give_class_back,
    take_class,
)
from frostline.torch._holding.writable import parts

LET_GO = "_frostline_let_go"
"""The attribute of a module that would be held if nothing below it trained: the mode to hold it in."""

_REGISTERING = (
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_backward_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
)


def is_held(module: nn.Module) -> bool:
    """Whether the module is held."""
    return HOLD in module.__dict__


def held_mode(module: nn.Module) -> str | None:
    """Returns the mode in which a module is held, if it is."""
    hold: Hold | None = module.__dict__.get(HOLD)
    return None if hold is None else hold.mode


def is_wanted_in_training(module: nn.Module) -> bool:
    """Whether a module is held that was last told to be in training mode."""
    hold: Hold | None = module.__dict__.get(HOLD)
    return hold is not None and hold.wanted


def goes_on_checkpointing(module: nn.Module) -> bool:
    """Whether a module is held that goes on computing activations again during backward."""
    hold: Hold | None = module.__dict__.get(HOLD)
    return hold is not None and hold.checkpoints


def hold_all(modes: Mapping[nn.Module, str | None], *, alone: Collection[nn.Module] = ()) -> None:
    """Holds and releases modules in place.

    A held module is in evaluation mode, or with ``"follow"`` in the mode that it is told. A module
    with a ``train`` of its own, which may merge weights or prepare a cache, is told when it is held
    and when it is released; a released one is as its ``train`` leaves it.

    Args:
        modes: modules, each before those below it, and the mode in which to hold them; None is not at all.
        alone: those of them that are held for the sake of their own buffers, whatever trains in them.
    """
    changed: dict[nn.Module, str | None] = {}
    holds: dict[nn.Module, Hold] = {}
    for module, mode in modes.items():
        attributes = module.__dict__
        attributes.pop(LET_GO, None)
        hold: Hold | None = attributes.get(HOLD)
        if hold is None:
            if mode is not None or module in alone:
                changed[module] = mode
        elif hold.mode != mode or hold.alone is not (module in alone):
            changed[module], holds[module] = mode, hold
    try:
        _release(holds)
    except BaseException:  # an interrupt: what was begun is finished
        _release(holds)
        raise
    held = {module: mode for module, mode in changed.items() if mode is not None}
    if not held:
        return
    wanted = {module: module.training for module in held}
    told = [module for module, mode in held.items() if mode == "eval" and has_own_train(module)]
    try:
        for module in told:
            if module.training:
                module.train(False)
    except BaseException:
        for module, training in wanted.items():
            module.__dict__["training"] = training
        raise
    stay = {id(module) for module in held if module.training}
    for module, mode in held.items():
        _hold(
            module,
            Hold(
                mode,
                wanted[module],
                checkpoints=mode == "eval" and module not in alone and checkpoints_activations(module),
                stays=id(module) in stay,
                alone=module in alone,
            ),
        )


def _hold(module: nn.Module, hold: Hold) -> None:
    module.__dict__[HOLD] = hold
    if hold.mode == "eval":
        module.__dict__["training"] = False
    called = hold.checkpoints or needs_held_calls(module, hold.mode)
    if called:
        module.__dict__.setdefault(WRITABLE, None)  # so that a call adds no attribute
    take_class(module, called=called, body=body)


def hold_calls(module: nn.Module, mode: str, *, wanted: bool) -> None:
    """Makes calls of a part of a frozen use held calls, in place, if they need it, and keeps its statistics."""
    checkpoints = mode == "eval" and checkpoints_activations(module)
    called = checkpoints or needs_held_calls(module, mode)
    if called or isinstance(module, nn.modules.batchnorm._NormBase):
        hold = Hold("eval" if checkpoints else "follow", wanted, checkpoints=checkpoints)
        module.__dict__.setdefault(HOLD, hold)
        take_class(module, called=called, body=body)


def want(module: nn.Module, training: bool) -> None:  # noqa: FBT001 - as nn.Module.train
    """Notes in place which mode a held module was told."""
    hold: Hold | None = module.__dict__.get(HOLD)
    if hold is not None:
        module.__dict__[HOLD] = replace(hold, wanted=training)


def forget(module: nn.Module) -> Hold | None:
    """Stops holding a module in place, leaves its mode as it is, and returns what was remembered of it."""
    present: Hold | None = module.__dict__.pop(HOLD, None)
    module.__dict__.pop(WRITABLE, None)
    module.__dict__.pop(WRITABLE_IN_BACKWARD, None)
    give_class_back(module)
    return present


def _release(holds: dict[nn.Module, Hold]) -> None:
    for module in holds:
        forget(module)
    holds = {module: hold for module, hold in holds.items() if hold.mode == "eval"}
    told: set[int] = set()
    for module, hold in holds.items():
        if hold.stays:
            module.__dict__["training"] = True
        if has_own_train(module) and module.training != hold.wanted:
            module.train(hold.wanted)
            told.update(id(inner) for inner in parts(module))
    for module, hold in holds.items():
        if id(module) in told and hold.is_told:
            continue
        module.__dict__["training"] = hold.wanted
        for child in () if hold.alone or not module._modules else module._modules.values():
            if (
                child is not None and child not in holds and not is_held(child)
            ):  # a call has put it there, in the mode that it found
                child.__dict__["training"] = hold.wanted


def has_own_train(module: nn.Module) -> bool:
    """Whether the module's class or its instance overrides ``train``."""
    return "train" in module.__dict__ or type(module).train is not nn.Module.train


def body(original: type[nn.Module], called: bool) -> dict[str, Any]:  # noqa: FBT001 - as classes.Body
    """Returns what the class of held modules has, beyond its original."""

    def train(module: nn.Module, mode: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - as nn.Module.train
        return _train(module, original, mode)

    functools.update_wrapper(train, original.train)
    attributes = {
        "train": Method("train", lambda module: types.MethodType(train, module), original),
        "__setattr__": _setting(original),
        "__delattr__": _deleting(original.__delattr__),
        **{name: _registering(getattr(original, name)) for name in _REGISTERING},
    }
    if issubclass(original, nn.modules.batchnorm._NormBase):
        attributes["reset_running_stats"] = _keeping(original.reset_running_stats)
    return {**attributes, **held_methods(original)} if called else attributes


def _train(module: nn.Module, original: type[nn.Module], mode: bool) -> nn.Module:  # noqa: FBT001 - as nn.Module.train
    if not isinstance(mode, bool):
        raise ValueError("training mode is expected to be boolean")
    if LET_GO in module.__dict__ and not _trains(module) and next(_trained(module), None) is not None:
        _take_back(module)
    hold: Hold | None = module.__dict__.get(HOLD)
    if hold is not None and not hold.alone and not is_covered(module):
        _hold_parametrizations(module, hold.mode)
    if hold is None or hold.mode != "eval":
        own = module.__dict__.get("train")
        return original.train(module, mode) if own is None else own(mode)
    if _trains(module) and not hold.alone:
        _let_go(module)
        return module.train(mode)
    if not is_covered(module):  # a module that is called passes on the mode in which it is held
        module.__dict__[HOLD] = replace(hold, wanted=mode, before=hold.wanted, is_told=True)
    for child in module.children():
        child.train(mode)
    return module


def _setting(original: type[nn.Module]) -> Any:
    """Trainers that evaluate amid training note all modes and write them back: that of a held module was False."""

    @functools.wraps(original.__setattr__)
    def set_attribute(module: nn.Module, name: str, value: Any) -> None:
        hold: Hold | None = module.__dict__.get(HOLD) if name == "training" else None
        if hold is not None and hold.before is not None and value is False and not module.training:
            module.__dict__[HOLD] = replace(hold, wanted=hold.before, before=None)
        original.__setattr__(module, name, value)

    return set_attribute


def _trained(module: nn.Module) -> Iterator[nn.Parameter]:
    found = (p for part in parts(module) for p in part._parameters.values() if p is not None)
    return (p for p in found if p.is_floating_point() or p.is_complex())


def _trains(module: nn.Module) -> bool:
    """Whether something below a module trains: a new head or adapter, or what somebody has set a flag of."""
    return any(parameter.requires_grad for parameter in _trained(module))


def _let_go(module: nn.Module) -> None:
    """Holds a module no longer, in place, and with it what has nothing to train and was held because of it."""
    hold: Hold = module.__dict__.pop(HOLD)
    module.__dict__[LET_GO] = hold.mode
    for child in module.children():
        has_claims = latest(child, OWN_BUFFERS) is not None or words_of(child)
        if is_held(child) and next(_trained(child), None) is None and not has_claims:
            _let_go(child)


def _take_back(module: nn.Module) -> None:
    """Holds a module again, in place, because nothing below it trains any more."""
    hold_all({inner: mode for inner in parts(module) if (mode := inner.__dict__.pop(LET_GO, None))})


def _hold_parametrizations(module: nn.Module, mode: str) -> None:
    """Holds, in place, what computes the weights of a held module and was registered since."""
    inner = module._modules.get("parametrizations")
    came = [] if inner is None else [part for part in parts(inner) if not is_held(part)]
    if came and not _trains(module):
        hold_all(dict.fromkeys(came, mode))


def _deleting(method: Callable[..., Any]) -> Callable[..., Any]:
    """A parametrization takes a tensor away first, to compute it in each call, which may write what it likes."""

    @functools.wraps(method)
    def delete(module: nn.Module, name: str) -> None:
        is_tensor = name in module._parameters or name in module._buffers
        method(module, name)
        if is_tensor and is_held(module):
            take_class(module, called=True, body=body)

    return delete


def _registering(method: Callable[..., Any]) -> Callable[..., Any]:
    """A hook may write what it likes, so calls of a module with one are held calls."""

    @functools.wraps(method)
    def register(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        handle = method(module, *args, **kwargs)
        if (mode := held_mode(module)) is not None and needs_held_calls(module, mode):
            take_class(module, called=True, body=body)
        return handle

    return register


def _keeping(reset: Callable[[Any], None]) -> Any:
    """A weight average resets the statistics of each norm, to measure them anew; those of a held one stand still."""

    @functools.wraps(reset)
    def reset_running_stats(module: nn.Module) -> None:
        if not is_held(module):
            reset(module)

    return reset_running_stats
