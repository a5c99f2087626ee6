"""Wrappers that note the trainable parameters when they are made, and ignore later changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from frostline._core.errors import WrappedError


def _is_instance(module: nn.Module, home: str, name: str) -> bool:
    # Importing these takes seconds; a model that is an instance has imported them already.
    loaded = sys.modules.get(home)
    return loaded is not None and isinstance(module, getattr(loaded, name))


def is_compiled(module: nn.Module) -> bool:
    """Whether the module is a result of ``torch.compile(module)``."""
    return _is_instance(module, "torch._dynamo.eval_frame", "OptimizedModule")


def _is_sharded(module: nn.Module) -> bool:
    return _is_instance(module, "torch.distributed.fsdp", "FullyShardedDataParallel")


def fixes_trainable_set(kind: type[nn.Module]) -> bool:
    """Whether modules of a class note the trainable parameters when they are made."""
    sharded = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", None)
    return issubclass(kind, DistributedDataParallel) or (sharded is not None and issubclass(kind, sharded))


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


def wrappers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the wrappers at or below a model that fix the trainable set when they are made, by path.

    ``fully_shard`` (FSDP2) is not one of them: it reads the flags at each step.
    """
    for path, module in model.named_modules():
        if fixes_trainable_set(type(module)):
            yield path, module


def refuse_wrapped(model: nn.Module) -> None:
    """Refuses a change that a wrapper would ignore.

    Raises:
        WrappedError: the model is or contains such a wrapper.
    """
    for path, module in wrappers(model):
        raise WrappedError(type(module).__name__, path)
