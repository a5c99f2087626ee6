"""Casting each frozen weight once in a call under autocast, in place of once for each use."""

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
from frostline.torch._holding.patch import Patch
from frostline.torch._tensors import addresses, versions

Cast = tuple[torch.Tensor, torch.Tensor]
"""A weight, which is kept alive so that its address stays unique, and its cast."""

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
"""Functions whose arguments autocast casts to the lower dtype, on each kind of device.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

ATTENTION_WEIGHTS = (5, 6, 11, 12)
"""The arguments of ``F.multi_head_attention_forward`` that go to ``F.linear``: in_proj and out_proj."""


@final
class Casts(TorchFunctionMode):
    """Casts a frozen weight once in this context, where autocast would cast it at each use.

    A function gets the tensor that autocast would have made, so its result and its saved tensors are bitwise equal, but
    several uses share one tensor. Modules and parameters do not change.
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
    """Whether autocast would cast a weight now without caching the cast."""
    return (
        weight.dtype is torch.float32
        and not weight.requires_grad
        and torch.is_autocast_enabled(weight.device.type)
        and torch.is_autocast_cache_enabled()
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _identity(weight: nn.Parameter) -> tuple[Any, ...]:
    # A frozen use has an alias of the layer's weight: another object with the same address and version counter.
    target = torch.get_autocast_dtype(weight.device.type)
    place = (addresses(weight), versions(weight), weight.shape, weight.stride())
    return (*place, target, torch.is_inference_mode_enabled())


class _OutermostCasts(threading.local):
    """The casts of the outermost call in this thread."""

    casts: Casts | None = None


_outermost = _OutermostCasts()


@final
class CastingForward(Patch):
    """The forward of a model in whose calls each frozen weight is cast once.

    Intercepting a function costs about a microsecond, which pays only if a weight is used more than once. So only the
    calls 1, 2, 4, 8, ... since the last freeze or thaw are intercepted, and those after a call in which a frozen weight
    was cast more than once.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.sync()

    def sync(self) -> None:
        """Starts again after a freeze or thaw."""
        self.calls = 0
        self.repeats = False

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the model's own forward, and keeps casts until it returns."""
        self.calls += 1
        if _outermost.casts is not None or not (self.repeats or self.calls.bit_count() == 1):
            return self.__wrapped__(*args, **kwargs)
        _outermost.casts = casts = Casts()
        try:
            with casts:
                return self.__wrapped__(*args, **kwargs)
        finally:
            _outermost.casts = None
            self.repeats = any(uses > 1 for uses in casts.uses.values())


def attach(model: nn.Module) -> Callable[[], None]:
    """Makes calls of a model under autocast cast each frozen weight once, in place.

    Autocast caches the cast of a trainable weight until its context ends, but casts a frozen weight at each use. Here
    the cast of a frozen weight is kept only until the call of the model returns. So a write between calls, even through
    ``weight.data.mul_(...)``, is noticed, and no memory stays in use. Within a call, a weight that was written in place
    or got other data is cast again. This covers the weights of ``Linear``, of ``Conv`` of every
    rank and transposed, of ``MultiheadAttention``, and functional uses of the same functions. Functions that autocast
    computes in float32 keep their float32 weights. Outputs, gradients, state dict and parameters do not change.

    Args:
        model: the model that is called under autocast.

    Returns:
        A function that undoes it.

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
