"""Changes inside of a data-parallel wrapper: refused where it would ignore them, and agreed on among the ranks."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from frostline._core.errors import RankError, WrappedError
from frostline.torch._freezing.survey import Survey
from frostline.torch._wrappers import FOLLOWING, wrappers

Flags = Mapping[str, bool]
"""Path of a parameter -> whether it is to train."""


def check_wrapped(model: nn.Module, read: Survey, expression: str, after: Flags) -> None:
    """Checks that the wrappers around and inside of a model take up a change, and that all ranks make the same.

    With a wrapper that follows, because of ``rewrap``, every rank must make the change: the ranks tell each other what
    it is.

    Args:
        model: the model as it was given.
        read: the same model.
        expression: the change, for errors.
        after: whether parameters are to train; those that do so now are no change.

    Raises:
        WrappedError: a wrapper would ignore the change.
        RankError: another rank makes another change.
    """
    changed = {path: trains for path, trains in after.items() if read.parameters[path].requires_grad != trains}
    if not changed:
        return
    tensors = {id(read.parameters[path]) for path in changed}
    inside = {wrapper: tensors.intersection(map(id, wrapper.parameters())) for wrapper in list(FOLLOWING)}
    if tensors not in inside.values():  # otherwise it is known what is around them, and nothing is searched
        check_follows(model, read, changed, changed)
    for wrapper, found in inside.items():
        if found:
            check_agreed(expression, wrapper, changed)
            if wrapper.will_sync_module_buffers():
                # The next call would do it; what is frozen now stands still from here on.
                wrapper._sync_buffers()


def check_follows(model: nn.Module, read: Survey, paths: Iterable[str], changed: Flags) -> None:
    """Checks that each wrapper that holds one of some parameters follows what is frozen.

    Args:
        model: the model as it was given.
        read: the same model.
        paths: the parameters that may change.
        changed: those of them that change now.

    Raises:
        WrappedError: one does not.
    """
    tensors = [read.parameters[path] for path in paths]
    if any(wrapper not in FOLLOWING for _, wrapper in wrappers(model, tensors)):
        gc.collect()  # a wrapper that nothing refers to but its own hooks is in nobody's way
        for path, wrapper in wrappers(model, tensors):
            if wrapper not in FOLLOWING:
                raise _refusal(path, wrapper, read, changed)


def check_agreed(expression: str, wrapper: DistributedDataParallel, changed: Flags) -> None:
    """Checks that all ranks of a wrapper make the same change; each must call it.

    Raises:
        RankError: they do not. Each rank raises it.
    """
    size = dist.get_world_size(wrapper.process_group)
    if size == 1:
        return
    words = [f"{'thaws' if trains else 'freezes'} {path}" for path, trains in sorted(changed.items())]
    said: list[list[str]] = [[] for _ in range(size)]
    dist.all_gather_object(said, words, group=wrapper.process_group)
    if all(each == said[0] for each in said):
        return
    unlike = sum(each != said[0] for each in said)
    lines = [
        f"rank {rank} {word}"
        for rank, each in enumerate(said)
        for word in each
        if any(word not in others for others in said)
    ]
    raise RankError(
        expression,
        f"would change {len(said[0])} parameters on rank 0, and others on {unlike} of {size} ranks:",
        tuple(lines),
        "Make the same change on each rank: from the same seed, or from numbers that were averaged over the ranks.",
    )


def _refusal(path: str, wrapper: nn.Module, read: Survey, changed: Flags) -> WrappedError:
    inside = set(map(id, wrapper.parameters()))
    changed = {path: trains for path, trains in changed.items() if id(read.parameters[path]) in inside}
    name = type(wrapper).__name__
    fix = f"Freeze first, then wrap: freeze(model, ...); model = {name}(model)."
    if isinstance(wrapper, DistributedDataParallel):
        fix = f"Let it follow first, on each rank: ddp = rewrap(ddp). Or freeze first, then wrap: {name}(model)."
    return WrappedError(
        name,
        path,
        tuple(sorted(path for path, trains in changed.items() if not trains)),
        tuple(sorted(path for path, trains in changed.items() if trains)),
        fix,
    )
