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

from frostline.torch._holding.backup import Trusted
from frostline.torch._holding.calls import held_call

HELD = "_frostline_forward"
REPLICATE = "_replicate_for_data_parallel"


class ReplacedForward(ABC):
    """Replaces ``module.forward``.

    It is set on the instance, so it is copied and pickled with the module, and it answers a direct
    call of ``module.forward`` too. Several form a chain, the outermost one first.

    Attributes:
        module: the module whose forward is replaced.
        earlier: the replaced forward; None is the forward of the class.
    """

    def __init__(self, module: nn.Module, earlier: Callable[..., Any] | None) -> None:
        self.module, self.earlier = module, earlier

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The replaced forward; ``inspect.signature`` reads it."""
        return self.earlier or type(self.module).forward.__get__(self.module)

    @property
    def __code__(self) -> CodeType:
        """The code of the replaced forward; ``torch.export`` says where it is."""
        return self.__wrapped__.__code__

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Computes a call of the module."""


class HeldForward(ReplacedForward):
    """The forward of a module while the module is held."""

    def __init__(self, module: nn.Module) -> None:
        earlier = module.__dict__.get("forward")
        super().__init__(module, earlier.earlier if isinstance(earlier, HeldForward) else earlier)
        self.trusted: Trusted = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if HELD not in self.module.__dict__:  # removed, and still inside somebody's wrapper
            return self.__wrapped__(*args, **kwargs)
        return held_call(self.module, self.__wrapped__, self.trusted, args, kwargs)


class Replicate:
    """Replaces the method by which ``DataParallel`` copies a module to another device.

    A replica gets the attributes of the original as they are, and so a forward that calls the
    original: on the wrong device, with the wrong weights.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self) -> nn.Module:
        replica: nn.Module = type(self.module)._replicate_for_data_parallel(self.module)
        del replica.__dict__[REPLICATE]
        install(replica)
        return replica


def install(module: nn.Module) -> None:
    """Makes every call of the module a held one, in place."""
    module.__dict__[HELD] = module.__dict__["forward"] = HeldForward(module)
    module.__dict__[REPLICATE] = Replicate(module)


def remove(module: nn.Module) -> None:
    """Gives the module its own forward back, in place.

    Another library may have wrapped the forward since; inside its wrapper ours only passes on.
    """
    installed: HeldForward | None = module.__dict__.pop(HELD, None)
    module.__dict__.pop(REPLICATE, None)
    if module.__dict__.get("forward") is installed and installed is not None:
        _set_forward(module, installed.earlier)


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


class Patch(ReplacedForward):
    """A forward that computes the same in another way, inside the module's hooks. A compiler traces past it."""

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
        """Computes a call while the patch is installed."""

    def remove(self) -> None:
        """Gives the module the forward that it would have without this one, in place. Idempotent."""
        self.is_installed = False
        chain = list(_chain(self.module))
        for outer in chain:
            if getattr(outer, "earlier", None) is self:
                outer.earlier = self.earlier
        forward: Any = self.earlier if chain and chain[0] is self else self.module.__dict__.get("forward")
        # A thaw could not take off a held forward while this patch lay over it.
        while isinstance(forward, HeldForward) and forward is not self.module.__dict__.get(HELD):
            forward = forward.earlier
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
