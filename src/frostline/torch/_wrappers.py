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


def class_when_whole(module: nn.Module) -> type[nn.Module]:
    """Returns the class that a module had before ``fully_shard`` gave it another one."""
    classes = type(module).__mro__
    names = [each.__name__ for each in classes]
    found: type[nn.Module] = classes[names.index("FSDPModule") + 1] if is_fully_sharded(module) else classes[0]
    return found


def is_gathered_for_calls(module: nn.Module) -> bool:
    """Whether ``fully_shard`` keeps shards of the parameters of the module's own, and gathers them before a call.

    A tensor-parallel module computes with its shards.
    """
    return getattr(module, "_is_fsdp_managed_module", False) and not is_tensor_parallel(module)


def is_tensor_parallel(module: nn.Module) -> bool:
    """Whether ``distribute_module`` has made the parameters of the module's own parallel, so that it computes so."""
    return hasattr(module, "_distribute_module_applied")


def take_to_rest(model: nn.Module) -> None:
    """Gives the units of a model that ``fully_shard`` has sharded their shards back, in place.

    A call without a backward leaves whole weights in the outermost unit. These are passing tensors: a flag that is set
    on one of them is lost. PyTorch does the same before a state dict is made.
    """
    for module in model.modules():
        if is_fully_sharded(module) and module._get_fsdp_state()._training_state.name == "IDLE":  # type: ignore[operator]
            module.reshard()  # type: ignore[operator]


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
