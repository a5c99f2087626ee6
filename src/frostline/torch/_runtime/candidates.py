"""The runtimes for the part below the line, each made from a copy of its structure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Hashable, Iterable
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from frostline.torch._runtime import int8
from frostline.torch._runtime.weights import Weight, copied, weights

Run = Callable[..., Any]
Memo = dict[Hashable, Any]
"""A weight and its form -> the tensor or module made from it, which graphs for several batch sizes share."""

WORDS = ("channels_last", "bfloat16", "int8", "compiled")
"""The words of a runtime, in the order in which they are applied."""

_COMPILERS = ("g++", "clang++", "c++", "cl")
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def made(words: Iterable[str], module: fx.GraphModule, memo: Memo) -> Run:
    """Returns a copy of a module that runs in a runtime; the memo is given the tensors made of its weights."""
    words = set(words)
    run = copied(module)
    if words & {"channels_last", "bfloat16"}:
        _cast(run, torch.bfloat16 if "bfloat16" in words else None, memo, channels_last="channels_last" in words)
    if "int8" in words:
        int8.quantise(run, memo)
    result = _Autocast(run) if "bfloat16" in words else run
    return _compiled(result) if "compiled" in words else result


def _cast(module: fx.GraphModule, dtype: torch.dtype | None, memo: Memo, *, channels_last: bool) -> None:
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
    """Runs a module under autocast, which leaves tensors alone that have been cast."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self.module = module
        self.kind = next((tensor.device.type for tensor in [*module.parameters(), *module.buffers()]), "cpu")

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


def unfit(words: Iterable[str], module: fx.GraphModule) -> str:
    """Returns the reason why a runtime cannot run a module here, or ``""``."""
    words, found = set(words), weights(module)
    linear = [weight for weight in found if weight.kind == "linear"]
    if words >= {"int8", "compiled"}:
        # A linear map of 192 to 576 took 700 times as long as the same operators one by one, with torch 2.13 on a CPU.
        return "compiled programs multiply matrices of eight bits in a slow way"
    if "channels_last" in words and not any(map(_has_channels, found)):
        return "no convolution of 2 or 3 dimensions is below the line"
    if "bfloat16" in words and not found:
        return "no convolution and no linear map is below the line"
    if "int8" in words and not linear:
        return "no linear map is below the line"
    if "int8" in words and not int8.is_exact(linear[0].tensor.device.type):
        return "matrices of eight bits are not multiplied exactly here"
    compilers = [os.environ.get("CXX", ""), *_COMPILERS]
    if "compiled" in words and not any(name and shutil.which(name) for name in compilers):
        return "no C++ compiler was found"
    return ""


def _has_channels(weight: Weight) -> bool:
    return weight.kind == "convolution" and weight.tensor.dim() in _FORMATS
