"""Forwards that are set on a module's instance in place of its own, and can be taken off again."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import torch
from torch import nn


class _Thread(threading.local):
    is_bare = False


_thread = _Thread()


@contextmanager
def bare() -> Iterator[None]:
    """Makes modules compute as if they had no patches, in this thread."""
    before, _thread.is_bare = _thread.is_bare, True
    try:
        yield
    finally:
        _thread.is_bare = before


class Patch(ABC):
    """Replaces the forward of a module by one that computes the same in another way.

    It is set on the instance, inside the module's hooks, so it is copied and pickled with the
    module, and it answers a direct call of ``module.forward`` too. Several form a chain, the
    outermost one first. A compiler traces past it.

    Attributes:
        module: the module whose forward is replaced.
        earlier: the replaced forward; None is the forward of the class.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.earlier: Callable[..., Any] | None = module.__dict__.get("forward")
        self.is_installed = True
        module.__dict__["forward"] = self

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The replaced forward; ``inspect.signature`` reads it."""
        return self.earlier or type(self.module).forward.__get__(self.module)

    @property
    def __code__(self) -> CodeType:
        """The code of the replaced forward; ``torch.export`` says where it is."""
        return self.__wrapped__.__code__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Removed, it may still be inside somebody's wrapper.
        if not self.is_installed or torch.compiler.is_compiling() or _thread.is_bare:
            return self.__wrapped__(*args, **kwargs)
        return self.call(*args, **kwargs)

    @abstractmethod
    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes a call while the patch is installed."""

    def remove(self) -> None:
        """Gives the module the forward that it would have without this one, in place. Idempotent."""
        self.is_installed = False
        chain = list(_chain(self.module))
        for outer in chain:
            if getattr(outer, "earlier", None) is self:
                outer.earlier = self.earlier
        forward: Any = self.earlier if chain and chain[0] is self else self.module.__dict__.get("forward")
        _set_forward(self.module, forward)


def remove_all(patches: Iterable[Patch]) -> None:
    """Removes patches in place, those that were installed last first."""
    for patch in reversed(list(patches)):
        patch.remove()


def patches(model: nn.Module) -> Iterator[Patch]:
    """Yields the patches of a model and of its parts."""
    for module in model.modules():
        yield from (forward for forward in _chain(module) if isinstance(forward, Patch))


def _chain(module: nn.Module) -> Iterator[Any]:
    forward: Any = module.__dict__.get("forward")
    while forward is not None:
        yield forward
        forward = getattr(forward, "earlier", None)


def _set_forward(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = forward
