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
    """Within this context, writes to the module's own buffers go to copies that are thrown away.

    The buffers are swapped, not restored: nothing is ever written to them, so their version
    counters stand still too. (Batch norm moves its statistics without counting a version, so a
    later comparison of counters would see nothing.)
    """
    originals = dict(module._buffers)
    for name, buffer in originals.items():
        if buffer is not None:
            module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        module._buffers.update(originals)


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
