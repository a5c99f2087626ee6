"""Wrappers that note at construction what is trainable, and ignore later changes."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from frostline._core.errors import WrappedError


def wrappers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The wrappers at or below a model that fix what is trainable when they are made, by path.

    ``fully_shard`` (FSDP2) is none of them: it reads the flags at each step.
    """
    for path, module in model.named_modules():
        if isinstance(module, DistributedDataParallel | FullyShardedDataParallel):
            yield path, module


def refuse_wrapped(model: nn.Module) -> None:
    """Raises before a change that a wrapper would ignore.

    Raises:
        WrappedError: the model is or contains such a wrapper.
    """
    for path, module in wrappers(model):
        raise WrappedError(type(module).__name__, path)
