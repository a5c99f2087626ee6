"""Hold a module whole: its mode and its buffers stand still while it is frozen."""

from __future__ import annotations

from torch import nn

from frostline.torch._holding import calls as _still
from frostline.torch._holding import forward as _forward

ATTRIBUTE = "_frostline_hold"


class Hold:
    """Stands in for ``module.train`` while the module is frozen.

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
        module: the module itself; what is below it is held by calls of its own.
        mode: ``"eval"`` or ``"follow"``.
    """
    present = module.__dict__.get(ATTRIBUTE)
    if present is not None and present.mode == mode:
        return
    release(module)
    module.__dict__[ATTRIBUTE] = Hold(module, mode)
    if mode == "eval":
        module.__dict__["train"] = module.__dict__[ATTRIBUTE]
        module.training = False
    if _still.needs_care(module, mode):
        _forward.install(module)


def release(module: nn.Module) -> None:
    """Undoes :func:`hold` in place: the module takes up the mode it was last told."""
    present = module.__dict__.get(ATTRIBUTE)
    if present is None:
        return
    forget(module)
    if present.mode == "eval":
        module.training = present.wanted


def forget(module: nn.Module) -> None:
    """Takes a hold off a module in place, and leaves its mode as it is."""
    present = module.__dict__.pop(ATTRIBUTE, None)
    if present is not None:
        _forward.remove(module)
        if module.__dict__.get("train") is present:
            del module.__dict__["train"]


def is_held(module: nn.Module) -> bool:
    """Whether a freeze holds the module's mode and buffers."""
    return ATTRIBUTE in module.__dict__
