"""Call a module so that the call leaves nothing behind in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from frostline._core.movement import MovedError
from frostline.torch._holding.kept import LARGE, Held, Kept, late_write

Trusted = set[str]
"""Names of large tensors of a module that calls of it have left alone."""


def writes_when_called(module: nn.Module) -> bool:
    """Whether a call may write into what the module itself holds."""
    return bool(_writable(module))


def _writable(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where a module holds what a call of it may write.

    PyTorch's own modules write statistics in training mode only, and embeddings with a greatest
    norm renormalise their weight. Of other modules nothing is known: observers and codebooks
    write in evaluation mode too, and in training mode some normalise their weights.
    """
    places = []
    if module._buffers and (module.training or not _is_stock(type(module))):
        places += _held(module._buffers)
    if _renormalises(module) or (module._parameters and module.training and not _is_stock(type(module))):
        places += _held(module._parameters)
    return places


def _held(registry: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    return [(registry, name) for name, tensor in registry.items() if tensor is not None]


def _renormalises(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None


def _is_stock(module_class: type[nn.Module]) -> bool:
    classes = [c for c in module_class.__mro__ if issubclass(c, nn.Module)]
    return all(c.__module__.startswith(("torch.nn.", "frostline.torch.")) for c in classes)


@contextmanager
def still(module: nn.Module, trusted: Trusted) -> Iterator[None]:
    """Whatever a call writes into what the module holds is undone.

    The call works on the tensors themselves and not on copies, so that what autograd saves of
    them takes no memory. What was written is restored when the outermost such context is left,
    because a module may read what its child has just written, as fake quantisation does.

    Args:
        module: the module that is called.
        trusted: the module's large tensors that earlier calls left alone: a mask of a mebibyte
            is not copied in each call, for nothing. This context adds to it.

    Raises:
        MovedError: a call has written into a trusted tensor.
    """
    outermost = _open.written is None
    written = [] if _open.written is None else _open.written
    _open.written = written
    places = _writable(module)
    mine = [Kept(registry, name) for registry, name in places if name not in trusted]
    held = [Held(registry, name) for registry, name in places if name in trusted]
    try:
        yield
    finally:
        left_alone = [kept for kept in mine if kept.settled()]
        written += [kept for kept in mine if kept not in left_alone]
        if outermost:
            _open.written = None
            for kept in reversed(written):
                kept.restore()
        late = tuple(late_write(module, one.name) for one in held if one.put_back())
    if late:
        raise MovedError(late, len(places))
    trusted.update(kept.name for kept in left_alone if kept.tensor.nbytes > LARGE and not _renormalises(module))


class _Open(threading.local):
    """What was written since the outermost still call of this thread began."""

    written: list[Kept] | None = None


_open = _Open()


@contextmanager
def swapped(module: nn.Module) -> Iterator[None]:
    """The same where calls are traced, and a copy costs nothing unless something writes to it."""
    originals = [(registry, name, registry[name]) for registry, name in _writable(module)]
    for registry, name, tensor in originals:
        registry[name] = tensor.detach().clone()
    try:
        yield
    finally:
        for registry, name, tensor in originals:
            registry[name] = tensor


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
    may_train = mode == "follow" and bool(module._buffers or not _is_stock(type(module)))
    return may_train or writes_when_called(module) or isinstance(module, nn.RNNBase)


def call_still(
    module: nn.Module,
    forward: Callable[..., Any],
    trusted: Trusted,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """``forward(*args, **kwargs)``, with the module's buffers and modes as they were before."""
    if not module.training and runs_on_cudnn(module) and torch.is_grad_enabled():
        with differentiable(module):  # type: ignore[arg-type]
            return forward(*args, **kwargs)
    if not writes_when_called(module):
        return forward(*args, **kwargs)
    with swapped(module) if _is_traced() else still(module, trusted):
        return forward(*args, **kwargs)
