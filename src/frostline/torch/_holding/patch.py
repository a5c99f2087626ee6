"""What stands in for the forward of a module, and can be taken back."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from frostline.torch._holding import forward as _forward


class _Thread(threading.local):
    is_bare = False


_thread = _Thread()


@contextmanager
def bare() -> Iterator[None]:
    """Within this context, in this thread, modules compute as if they had no patches."""
    before, _thread.is_bare = _thread.is_bare, True
    try:
        yield
    finally:
        _thread.is_bare = before


class Patch(_forward.StandIn):
    """Stands in for ``module.forward``, inside the module's hooks. What is traced by a compiler passes it by."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, module.__dict__.get("forward"))
        self.is_installed = True
        module.__dict__["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Removed, it may still be inside somebody's wrapper.
        if not self.is_installed or torch.compiler.is_compiling() or _thread.is_bare:
            return self.__wrapped__(*args, **kwargs)
        return self.call(*args, **kwargs)

    @abstractmethod
    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What a call computes while this is installed."""

    def remove(self) -> None:
        """Gives the module the forward back that it would have without this, in place. Idempotent."""
        self.is_installed = False
        self.module.__dict__["forward"] = _without(self.module.__dict__.get("forward"), self)
        _drop_finished(self.module)


def remove_all(patches: Iterable[Patch]) -> None:
    """Removes patches in place, those that were installed last first."""
    for patch in reversed(list(patches)):
        patch.remove()


def patches(model: nn.Module) -> Iterator[Patch]:
    """The patches of a model and of its parts."""
    for module in model.modules():
        forward = module.__dict__.get("forward")
        while forward is not None:
            if isinstance(forward, Patch):
                yield forward
            forward = getattr(forward, "earlier", None)


def _without(forward: Any, patch: Patch) -> Any:
    """A chain of forwards, the outermost one first, without one of them."""
    if forward is patch:
        return patch.earlier
    outer = forward
    while outer is not None:
        if getattr(outer, "earlier", None) is patch:
            outer.earlier = patch.earlier
            break
        outer = getattr(outer, "earlier", None)
    return forward


def _drop_finished(module: nn.Module) -> None:
    # A thaw could not take away the forward of a freeze while a patch lay over it.
    forward = module.__dict__["forward"]
    while isinstance(forward, _forward.StillForward) and forward is not module.__dict__.get(_forward.ATTRIBUTE):
        forward = forward.earlier
    if forward is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = forward
