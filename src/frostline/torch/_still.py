"""Call a module so that the call leaves nothing behind in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def writes_when_called(module: nn.Module) -> bool:
    """Whether a call may write into the module's own buffers.

    PyTorch's own modules write statistics in training mode only. Of other modules nothing is
    known: observers and codebooks write in evaluation mode too.
    """
    return bool(module._buffers) and (module.training or not _is_stock(module))


def _is_stock(module: nn.Module) -> bool:
    classes = [c for c in type(module).__mro__ if issubclass(c, nn.Module)]
    return all(c.__module__.startswith(("torch.nn.", "frostline.torch.")) for c in classes)


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """Whatever the module's own buffers are on exit, they are again what they were on entry.

    The call works on the buffers themselves, and not on copies, so that what autograd saves of
    them takes no memory. Kernels that update statistics do not count a version, so those are
    restored in any case, through ``.data``: that counts none either, and a graph that saved the
    buffer earlier stays valid.
    """
    if _is_traced():
        with _swapped(module):
            yield
        return
    buffers = {name: b for name, b in module._buffers.items() if b is not None}
    copies = {name: (b.clone(), b._version) for name, b in buffers.items()}
    try:
        yield
    finally:
        module._buffers.update(buffers)
        for name, buffer in buffers.items():
            copy, version = copies[name]
            if buffer.is_floating_point() or buffer._version != version:
                buffer.data.copy_(copy)


@contextmanager
def _swapped(module: nn.Module) -> Iterator[None]:
    """The same where calls are traced, and a write to a copy costs nothing: none is written to."""
    originals = dict(module._buffers)
    for name, buffer in originals.items():
        if buffer is not None:
            module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        module._buffers.update(originals)


def _is_traced() -> bool:
    return torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None


@contextmanager
def differentiable(module: nn.RNNBase) -> Iterator[None]:
    """Within this context cuDNN can differentiate a recurrent layer that is held in eval mode.

    cuDNN keeps what its backward needs in training mode only. Dropout is the one thing in which
    the modes of a recurrent layer differ, so training mode without dropout computes the same.

    Source: https://github.com/pytorch/pytorch/issues/8582
    """
    training, dropout = module.training, module.dropout
    module.training, module.dropout = True, 0.0
    try:
        yield
    finally:
        module.training, module.dropout = training, dropout


def runs_on_cudnn(module: nn.Module) -> bool:
    """Whether the module is a recurrent layer whose weights lie where cuDNN would run it."""
    return (
        isinstance(module, nn.RNNBase)
        and torch.backends.cudnn.enabled
        and any(p.is_cuda for p in module.parameters(recurse=False))
    )


def needs_care(module: nn.Module, mode: str) -> bool:
    """Whether a frozen module must be called through :func:`call_still`, now or later."""
    follows = mode == "follow" and bool(module._buffers)
    return follows or writes_when_called(module) or isinstance(module, nn.RNNBase)


def call_still(module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``forward(*args, **kwargs)``, with the module's buffers and modes as they were before."""
    if not module.training and runs_on_cudnn(module) and torch.is_grad_enabled():
        with differentiable(module):  # type: ignore[arg-type]
            return forward(*args, **kwargs)
    if not writes_when_called(module):
        return forward(*args, **kwargs)
    with still(module):
        return forward(*args, **kwargs)


class StillForward:
    """Stands in for ``module.forward`` while the module is frozen.

    It is set on the instance, so it is copied and pickled with the module, and a direct call of
    ``module.forward`` goes through it too.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.earlier = module.__dict__.get("forward")

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The forward that this one stands for; ``inspect.signature`` reads it."""
        return self.earlier or type(self.module).forward.__get__(self.module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call_still(self.module, self.__wrapped__, args, kwargs)


def install(module: nn.Module) -> None:
    """Makes every call of the module a still one, in place."""
    module.__dict__["forward"] = StillForward(module)


def remove(module: nn.Module) -> None:
    """Gives the module its own forward back, in place.

    Another library may have wrapped the forward since. Then ours stays inside that wrapper as a
    plain pass-through, because it acts on nothing that is not frozen.
    """
    installed = module.__dict__.get("forward")
    if isinstance(installed, StillForward):
        del module.__dict__["forward"]
        if installed.earlier is not None:
            module.__dict__["forward"] = installed.earlier
