"""The mode of a held module: it does not change while the module is frozen."""

from __future__ import annotations

from torch import nn

from frostline.torch._holding import forward as _forward
from frostline.torch._holding.calls import needs_held_calls

ATTRIBUTE = "_frostline_hold"


class HeldMode:
    """Replaces ``module.train`` while the module is frozen.

    A frozen module stays in evaluation mode through any number of ``train()`` calls on it or on
    what contains it. The mode that those calls asked for is remembered and taken up on release.
    It is set on the instance: no module is replaced, and it is copied and pickled with the module.
    """

    def __init__(self, module: nn.Module, mode: str) -> None:
        self.module = module
        self.mode = mode
        self.wanted = module.training

    def __call__(self, mode: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - as nn.Module.train
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.wanted = mode
        for child in self.module.children():
            child.train(mode)
        return self.module


def hold(module: nn.Module, mode: str) -> None:
    """Holds a module in place: in evaluation mode, or with ``"follow"`` in the mode it is told.

    Args:
        module: the module itself; modules below it are held by calls of their own.
        mode: ``"eval"`` or ``"follow"``.
    """
    present = module.__dict__.get(ATTRIBUTE)
    if present is not None and present.mode == mode:
        return
    release(module)
    module.__dict__[ATTRIBUTE] = HeldMode(module, mode)
    if mode == "eval":
        module.__dict__["train"] = module.__dict__[ATTRIBUTE]
        module.training = False
    if needs_held_calls(module, mode):
        _forward.install(module)


def release(module: nn.Module) -> None:
    """Undoes :func:`hold` in place: the module takes up the mode it was last told."""
    present = forget(module)
    if present is not None and present.mode == "eval":
        module.training = present.wanted


def forget(module: nn.Module) -> HeldMode | None:
    """Stops holding a module, in place, leaves its mode as it is, and returns what held it."""
    present: HeldMode | None = module.__dict__.pop(ATTRIBUTE, None)
    if present is not None:
        _forward.remove(module)
        if module.__dict__.get("train") is present:
            del module.__dict__["train"]
    return present


def is_held(module: nn.Module) -> bool:
    """Whether the module is held."""
    return ATTRIBUTE in module.__dict__
