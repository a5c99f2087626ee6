"""The tensors of a model, divided into those that stand still under a plan and those that may move."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from frostline._core.plan import Plan
from frostline.torch._freezing.survey import Survey
from frostline.torch._tensors import addresses

Tensors = dict[str, tuple[torch.Tensor, str]]
"""Path -> tensor, and "parameter" or "buffer"."""


@dataclass(frozen=True)
class Division:
    """The tensors of a model in two parts.

    Attributes:
        still: frozen parameters, and the buffers of held modules.
        moving: the rest.
        trained_elsewhere: the names, inside frozen uses, of tensors that the model trains elsewhere -> their names
            there. They are in neither part: that the layer moves is meant.
    """

    still: Tensors
    moving: Tensors
    trained_elsewhere: dict[str, str]


def named_tensors(read: Survey) -> Tensors:
    """Returns all parameters, and the buffers under each of their names."""
    found: Tensors = {path: (parameter, "parameter") for path, parameter in read.parameters.items()}
    for path, module in read.modules.items():
        for local, buffer in module._buffers.items():
            if buffer is not None:
                found[f"{path}.{local}" if path else local] = (buffer, "buffer")
    return found


def divided(read: Survey, plan: Plan) -> Division:
    """Divides the tensors of a model as they would be divided if it followed a plan.

    Args:
        read: the model.
        plan: a plan that speaks of its paths.
    """
    names = [(name, param.path in plan.frozen) for param in read.inventory.params for name in param.names]
    with_trainable = {above for name, is_frozen in names if not is_frozen for above in _above(name)}
    with_trainable.update(above for path in plan.moving for above in _above(path))
    all_frozen = {above for name, is_frozen in names if is_frozen for above in _above(name)} - with_trainable
    held = all_frozen | (plan.frozen & read.modules.keys())
    still: Tensors = {}
    moving: Tensors = {}
    for path, (tensor, kind) in named_tensors(read).items():
        is_held = kind == "buffer" and (path in plan.still or not held.isdisjoint(_above(path)))
        is_still = path in plan.frozen or is_held
        (still if is_still else moving)[path] = (tensor, kind)
    trained = {addresses(tensor): path for path, (tensor, _) in moving.items() if not tensor.is_meta}
    uses = {path: t for path, (t, _) in still.items() if id(read.modules[path.rpartition(".")[0]]) in read.pinned}
    places = {path: addresses(tensor) for path, tensor in uses.items()}
    elsewhere = {path: trained[place] for path, place in places.items() if any(place) and place in trained}
    return Division({path: found for path, found in still.items() if path not in elsewhere}, moving, elsewhere)


def _above(path: str) -> list[str]:
    """Returns the paths of the modules around a tensor, the root first."""
    keys = path.split(".")
    return [".".join(keys[:depth]) for depth in range(len(keys))]
