"""Wrappers around a model or its parts: those that compile, copy, average or shard."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

FOLLOWING: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()
"""The data-parallel wrappers that follow what is frozen, because of `rewrap`."""


def _is_instance(module: nn.Module, home: str, name: str) -> bool:
    # Importing these takes seconds; a model that is an instance has imported them already.
    loaded = sys.modules.get(home)
    return loaded is not None and isinstance(module, getattr(loaded, name))


def is_compiled(module: nn.Module) -> bool:
    """Whether the module is a result of ``torch.compile(module)``."""
    return _is_instance(module, "torch._dynamo.eval_frame", "OptimizedModule")


def _is_sharded(module: nn.Module) -> bool:
    return _is_instance(module, "torch.distributed.fsdp", "FullyShardedDataParallel")


def is_fully_sharded(module: nn.Module) -> bool:
    """Whether ``fully_shard`` (FSDP2) was called on the module."""
    return _is_instance(module, "torch.distributed.fsdp", "FSDPModule")


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the model inside ``torch.compile`` and data-parallel wrappers."""
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel) or _is_sharded(model):
            model = model.module  # type: ignore[assignment]
        elif is_compiled(model):
            model = model.get_submodule("_orig_mod")
        else:
            return model


def wrappers(model: nn.Module, tensors: Iterable[Tensor]) -> list[tuple[str, nn.Module]]:
    """Returns the wrappers that fixed the trainable set when they were made, and hold one of some tensors of a model.

    A model does not know what is wrapped around it. So all objects are looked through in processes that have met
    others; in any other process there is nothing around it. ``fully_shard`` (FSDP2) is no such wrapper: it reads the
    flags at each step.

    Returns:
        Each wrapper with its path in the model; "" is the model itself, or around it.
    """
    found = {id(module): (path, module) for path, module in model.named_modules() if is_static(module)}
    if dist.is_available() and dist.is_initialized():
        modules = [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]
        found = {id(each): ("", each) for each in modules if is_static(each)} | found
    wanted = set(map(id, tensors))
    return [
        (path, wrapper)
        for path, wrapper in found.values()
        if not wanted.isdisjoint(map(id, (*wrapper.parameters(), *wrapper.buffers())))
    ]


def is_static(module: nn.Module) -> bool:
    """Whether a module is a wrapper that fixed the trainable set when it was made."""
    return issubclass(type(module), DistributedDataParallel) or _is_sharded(module)
