"""Cast what is frozen once in a call under autocast, and not at each use."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from frostline.torch._freezing.held_modules import FOLLOWERS
from frostline.torch._holding.forward import Patch

Cast = tuple[torch.Tensor, torch.Tensor]
"""A weight, which keeps its address its own, and the same in the lower type."""

NAMES = ("matmul", "mm", "bmm", "addmm", "addbmm", "baddbmm")

LOWERED: frozenset[Any] = frozenset(
    (
        F.linear,
        *(getattr(F, f"conv{rank}d") for rank in (1, 2, 3)),
        *(getattr(F, f"conv_transpose{rank}d") for rank in (1, 2, 3)),
        *(getattr(torch, name) for name in NAMES),
        *(getattr(torch.Tensor, name) for name in NAMES),
        torch.Tensor.__matmul__,
        torch.Tensor.__rmatmul__,
    )
)
"""Functions of which autocast takes every argument to the lower type, on each kind of device.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

ATTENTION_WEIGHTS = (5, 6, 11, 12)
"""Where ``F.multi_head_attention_forward`` takes what it gives to ``F.linear`` as it is: in_proj and out_proj."""


@final
class Casts(TorchFunctionMode):
    """Within this context a frozen weight that autocast would cast is cast once.

    A function gets what autocast would have made for it, so that its result and what it saves for backward are
    bitwise the same; only, several uses get the same tensor. No module and no parameter is touched.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uses: Counter[tuple[Any, ...]] = Counter()
        self._casts: dict[tuple[Any, ...], Cast] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls `func` with casts in place of frozen weights, if autocast would cast its arguments."""
        kwargs = kwargs or {}
        if func in LOWERED and "out" not in kwargs:
            args = tuple(map(self._lowered, args))
            kwargs = {name: self._lowered(value) for name, value in kwargs.items()}
        elif func is F.multi_head_attention_forward:
            args = tuple(self._lowered(a) if i in ATTENTION_WEIGHTS else a for i, a in enumerate(args))
        return func(*args, **kwargs)

    def _lowered(self, value: Any) -> Any:
        if type(value) is not nn.Parameter or not _is_cast(value):
            return value
        key = _identity(value)
        self.uses[key] += 1
        if key not in self._casts:
            held = value.detach()
            self._casts[key] = (held, held.to(torch.get_autocast_dtype(value.device.type)))
        return self._casts[key][1]


def _is_cast(weight: nn.Parameter) -> bool:
    """Whether autocast would cast a weight now, and keep no cast of it."""
    return (
        weight.dtype is torch.float32
        and not weight.requires_grad
        and torch.is_autocast_enabled(weight.device.type)
        and torch.is_autocast_cache_enabled()
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _identity(weight: nn.Parameter) -> tuple[Any, ...]:
    # A frozen use has an alias of the layer's weight: another object, at the same address, with the same counter.
    version = 0 if weight.is_inference() else weight._version
    target = torch.get_autocast_dtype(weight.device.type)
    return (weight.data_ptr(), version, weight.shape, weight.stride(), target, torch.is_inference_mode_enabled())


class _Open(threading.local):
    """The casts of the outermost call in this thread."""

    casts: Casts | None = None


_open = _Open()


@final
class CastingForward(Patch):
    """Stands in for the forward of a model: each call of it casts a frozen weight once.

    To look at every function costs about a microsecond each, and is worth it only where a weight is used more than
    once. So the calls 1, 2, 4, 8, ... since the last freeze or thaw are looked at, and the calls after one in which
    a frozen weight was cast more than once.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.sync()

    def sync(self) -> None:
        """Looks anew: something was frozen or thawed."""
        self.calls = 0
        self.repeats = False

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward, with casts that are kept until it returns."""
        self.calls += 1
        if _open.casts is not None or not (self.repeats or self.calls.bit_count() == 1):
            return self.__wrapped__(*args, **kwargs)
        _open.casts = casts = Casts()
        try:
            with casts:
                return self.__wrapped__(*args, **kwargs)
        finally:
            _open.casts = None
            self.repeats = any(uses > 1 for uses in casts.uses.values())


def attach(model: nn.Module) -> Callable[[], None]:
    """Makes calls of a model under autocast cast each frozen weight once, in place.

    Autocast keeps the cast of a trainable weight until its context ends, and casts a frozen one at each use. Here
    the cast of a frozen weight is kept until the call of the model returns, no longer: a value that is written in
    between calls, even behind autograd's back (``weight.data.mul_(...)``), is seen, and no memory is held. Within a
    call a weight that was written to in place, or got other data, is cast anew. Weights of ``Linear``, ``Conv`` of
    every rank and transposed, ``MultiheadAttention``, and of functional uses of the same functions; what autocast
    computes in float32 keeps its float32 weights. Outputs, gradients, state dict and parameters are as before.

    Args:
        model: what is called under autocast.

    Returns:
        What takes it back.

    Source: ``cached_cast`` in ATen's ``autocast_mode.cpp`` keeps leaves that require a gradient only.

    Example:
        >>> from frostline.torch._lean.casting import attach
        >>> model = nn.Linear(4, 4).requires_grad_(False)
        >>> detach = attach(model)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     model(torch.ones(2, 4)).dtype
        torch.bfloat16
        >>> detach()
        >>> "forward" in vars(model)
        False
    """
    patch = CastingForward(model)
    FOLLOWERS.add(patch)
    return patch.remove
