"""What several processes that have one model do together: they save it, load it, and look at its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from frostline._core.errors import RankError
from frostline._core.errors.base import first_line
from frostline.torch._tensors import is_distributed, whole
from frostline.torch._wrappers import FOLLOWING

Result = TypeVar("Result")


def is_shared(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether several processes have the tensors together, so that each must take part in what reads them."""
    return any(map(is_distributed, tensors))


def is_writer() -> bool:
    """Whether this process writes what all have together."""
    return not dist.is_initialized() or dist.get_rank() == 0


def kept_by_writer(tensor: torch.Tensor) -> torch.Tensor:
    """Returns a tensor with all its values in main memory where it is written; elsewhere no more than its shape."""
    full = whole(tensor)
    return full.cpu() if is_writer() else torch.empty_like(full, device="meta")


def all_or_none(expression: str, step: Callable[[], Result], *, together: bool) -> Result:
    """Returns the result of a step that others do at the same time, or raises an error on each rank if it fails on one.

    Args:
        expression: the call of the user, for errors.
        step: what this process does; it must not wait for others.
        together: whether others do it.

    Raises:
        RankError: it failed on another rank. The rank itself raises its own error.
    """
    if not together:
        return step()
    error: Exception | None = None
    try:
        result = step()
    except Exception as found:  # noqa: BLE001 - it is raised below, when the others know of it
        error = found
    said: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(said, "" if error is None else first_line(error))
    if error is not None:
        raise error
    if failed := [f"rank {rank}: {text}" for rank, text in enumerate(said) if text]:
        raise RankError(
            expression,
            f"was given up on this rank, {dist.get_rank()}, because it failed on {len(failed)} of {len(said)} ranks:",
            tuple(failed),
            "Mend what failed there, and call it again on each rank.",
        )
    return result


def in_shards(full: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Returns a tensor that each process has whole in the shards of another one; nothing is sent."""
    if not is_distributed(like):
        return full
    from torch.distributed.tensor import DTensor, Replicate

    mesh, placements = like.device_mesh, like.placements  # type: ignore[attr-defined]
    copies = [Replicate() for _ in range(mesh.ndim)]
    local = full.to(like.device)
    return DTensor.from_local(local, mesh, copies, run_check=False).redistribute(placements=placements)


def moments_in_shards(state: Mapping[str, Mapping[str, Any]], owned: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Returns moments by name, each in the shards of its parameter."""

    def shared(name: str, value: Any) -> Any:
        parameter = owned.get(name)
        is_moment = isinstance(value, torch.Tensor) and parameter is not None and value.shape == parameter.shape
        return in_shards(value, parameter) if is_moment and parameter is not None else value

    return {name: {key: shared(name, value) for key, value in moments.items()} for name, moments in state.items()}


def averaged(root: nn.Module, observation: Mapping[str, float]) -> Mapping[str, float]:
    """Returns the mean of numbers over the processes that train a model together, so that all decide alike.

    Args:
        root: the model; each process that has it must call this.
        observation: the numbers of this process, by name.

    Raises:
        RankError: another process has numbers of other names. Each raises it.
    """
    around = (wrapper for wrapper in FOLLOWING if any(module is root for module in wrapper.modules()))
    wrapper = next(around, None)
    if wrapper is None and not is_shared(root.parameters()):
        return observation
    group = None if wrapper is None else wrapper.process_group
    said: list[Mapping[str, float]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(said, dict(observation), group=group)
    if unlike := [each for each in said if each.keys() != said[0].keys()]:
        raise RankError(
            "driver.step(...)",
            f"got numbers with other names on {len(unlike)} of {len(said)} ranks:",
            tuple(f"rank {rank}: {', '.join(sorted(each)) or 'none'}" for rank, each in enumerate(said)),
            "Pass the same numbers on each rank, in the same steps; their mean decides.",
        )
    return {
        name: value if all(each[name] == value for each in said) else math.fsum(each[name] for each in said) / len(said)
        for name, value in observation.items()
    }
