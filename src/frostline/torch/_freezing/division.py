"""What stands still under a plan, and what may move: parameters, and the buffers around them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from frostline._core.plan import Plan
from frostline.torch._freezing.survey import Survey

Tensors = dict[str, tuple[torch.Tensor, str]]
"""Path -> tensor, and "parameter" or "buffer"."""


@dataclass(frozen=True)
class Division:
    """The tensors of a model in two parts.

    Attributes:
        still: what nothing moves: frozen parameters, and buffers of modules that are frozen whole.
        moving: the rest.
        shadows: names inside frozen uses of what trains elsewhere in the model -> its name there. They are in neither
            part: that the layer moves is meant.
    """

    still: Tensors
    moving: Tensors
    shadows: dict[str, str]


def tensors(read: Survey) -> Tensors:
    """All parameters, and the buffers by each of their names."""
    found: Tensors = {path: (parameter, "parameter") for path, parameter in read.parameters.items()}
    for path, module in read.modules.items():
        for local, buffer in module._buffers.items():
            if buffer is not None:
                found[f"{path}.{local}" if path else local] = (buffer, "buffer")
    return found


def divided(read: Survey, plan: Plan) -> Division:
    """The tensors of a model as they would be, if it followed a plan.

    Args:
        read: the model.
        plan: a plan that speaks of its paths.
    """
    held = _held(read, plan)
    still: Tensors = {}
    moving: Tensors = {}
    for path, (tensor, kind) in tensors(read).items():
        stands = path in plan.frozen if kind == "parameter" else not held.isdisjoint(_above(path))
        (still if stands else moving)[path] = (tensor, kind)
    names = {tensor.data_ptr(): path for path, (tensor, _) in moving.items() if not tensor.is_meta}
    shadows = {
        path: names[tensor.data_ptr()]
        for path, (tensor, _) in still.items()
        if _is_pinned(read, path) and tensor.data_ptr() in names
    }
    return Division({path: found for path, found in still.items() if path not in shadows}, moving, shadows)


def _held(read: Survey, plan: Plan) -> frozenset[str]:
    """The paths of modules whose buffers stand still: frozen whole, or without parameters and frozen by themselves."""
    names = [(name, param.path in plan.frozen) for param in read.inventory.params for name in param.names]
    learning = {above for name, is_frozen in names if not is_frozen for above in _above(name)}
    whole = {above for name, is_frozen in names if is_frozen for above in _above(name)} - learning
    return frozenset(whole | (plan.frozen & read.modules.keys()))


def _is_pinned(read: Survey, path: str) -> bool:
    return id(read.modules[path.rpartition(".")[0]]) in read.pinned


def _above(path: str) -> Iterable[str]:
    """The paths of the modules around a tensor, the root first."""
    keys = path.split(".")
    return [".".join(keys[:depth]) for depth in range(len(keys))]
