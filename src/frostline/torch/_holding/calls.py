"""The call of a held module, which leaves nothing behind in the module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from frostline.torch._holding.backup import Trusted, called_on_copies, is_stock, writable_places, writes_undone


def needs_held_calls(module: nn.Module, mode: str) -> bool:
    """Whether a frozen module must be called through :func:`held_call`, now or in another mode."""
    may_train = mode == "follow" and bool(module._buffers or not is_stock(module))
    return may_train or isinstance(module, nn.RNNBase) or bool(writable_places(module))


def held_call(
    module: nn.Module,
    forward: Callable[..., Any],
    trusted: Trusted,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Returns ``forward(*args, **kwargs)``, and leaves the module's tensors and modes as they were."""
    if not module.training and runs_on_cudnn(module) and torch.is_grad_enabled():
        with _differentiable(module):  # type: ignore[arg-type]
            return forward(*args, **kwargs)
    places = writable_places(module)
    if not places:
        return forward(*args, **kwargs)
    is_traced = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
    with called_on_copies(places) if is_traced else writes_undone(module, places, trusted):
        return forward(*args, **kwargs)


def runs_on_cudnn(module: nn.Module) -> bool:
    """Whether the module is a recurrent layer whose weights lie where cuDNN would run it."""
    return (
        isinstance(module, nn.RNNBase)
        and torch.backends.cudnn.enabled
        and any(p.is_cuda for p in module.parameters(recurse=False))
    )


@contextmanager
def _differentiable(module: nn.RNNBase) -> Iterator[None]:
    """Makes cuDNN differentiate a recurrent layer that is in evaluation mode.

    cuDNN keeps what its backward needs in training mode only. The modes of a recurrent layer differ
    in nothing but dropout, so training mode without dropout computes the same.

    Source: https://github.com/pytorch/pytorch/issues/8582
    """
    training, dropout = module.training, module.dropout
    module.training, module.dropout = True, 0.0
    try:
        yield
    finally:
        module.training, module.dropout = training, dropout
