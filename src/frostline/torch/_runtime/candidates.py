"""The ways in which what is below the line may run, each made from a copy of its structure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from frostline.torch._runtime import int8
from frostline.torch._runtime.weights import Weight, copied, tensors, weights

Run = Callable[..., Any]
Memo = dict[Hashable, Any]
"""What was made of a weight, so that graphs for several batch sizes share it."""

WORDS = ("channels_last", "bfloat16", "int8", "compiled")
"""What a runtime may be, in the order in which it is made."""

_COMPILERS = ("g++", "clang++", "c++", "cl")
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def made(words: Iterable[str], module: nn.Module, memo: Memo) -> Run:
    """A module as it runs in a runtime; the module itself stays as it is.

    Args:
        words: some of `WORDS`.
        module: what is below the line.
        memo: gets what is made of its weights, or has it.
    """
    words = set(words)
    run = copied(module)
    if words & {"channels_last", "bfloat16"}:
        _cast(run, torch.bfloat16 if "bfloat16" in words else None, memo, channels_last="channels_last" in words)
    if "int8" in words:
        int8.quantise(run, memo)
    if "bfloat16" in words:
        run = _Autocast(run)
    return _compiled(run) if "compiled" in words else run


def _cast(module: nn.Module, dtype: torch.dtype | None, memo: Memo, *, channels_last: bool) -> None:
    for weight in weights(module):
        old = weight.tensor.detach()
        own = dtype if dtype and old.dtype is torch.float32 else old.dtype
        layout = _FORMATS[old.dim()] if channels_last and _has_channels(weight) else torch.preserve_format
        key = id(weight.tensor), own, layout
        if key not in memo:
            memo[key] = old.to(own, memory_format=layout)
        weight.put(memo[key])


@final
class _Autocast(nn.Module):
    """Runs a module under autocast, which leaves alone what has been cast."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.kind = next((tensor.device.type for tensor in tensors(module)), "cpu")

    def forward(self, *inputs: Tensor) -> Any:
        with torch.autocast(self.kind, torch.bfloat16, cache_enabled=False):
            return self.module(*inputs)


def _compiled(module: nn.Module) -> Run:
    import torch._inductor.config as inductor

    compiled = torch.compile(module)

    def run(*inputs: Any) -> Any:
        # Both the tracer and the compiler read it, and they do so when a shape is new.
        with inductor.patch(freezing=True):
            return compiled(*inputs)

    return run


def unfit(words: Iterable[str], module: nn.Module) -> str:
    """Why a runtime cannot run a module here, or ``""``."""
    words = set(words)
    if words >= {"int8", "compiled"}:
        # A linear map of 192 to 576 took 700 times as long as the same operators one by one, with torch 2.13 on a CPU.
        return "compiled programs multiply matrices of eight bits in a slow way"
    return next((reason for word in WORDS if word in words and (reason := _UNFIT[word](module))), "")


def _has_channels(weight: Weight) -> bool:
    return weight.kind == "convolution" and weight.tensor.dim() in _FORMATS


def _without_channels(module: nn.Module) -> str:
    return "" if any(map(_has_channels, weights(module))) else "no convolution of 2 or 3 dimensions is below the line"


def _without_weights(module: nn.Module) -> str:
    return "" if weights(module) else "no convolution and no linear map is below the line"


def _without_linear(module: nn.Module) -> str:
    if not any(weight.kind == "linear" for weight in weights(module)):
        return "no linear map is below the line"
    return "" if int8.is_there() else "this PyTorch multiplies no matrices of eight bits"


def _without_compiler(_: nn.Module) -> str:
    named = [os.environ.get("CXX", ""), *_COMPILERS]
    return "" if any(name and shutil.which(name) for name in named) else "no C++ compiler was found"


_UNFIT: Mapping[str, Callable[[nn.Module], str]] = {
    "channels_last": _without_channels,
    "bfloat16": _without_weights,
    "int8": _without_linear,
    "compiled": _without_compiler,
}
