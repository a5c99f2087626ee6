"""What one side of the line holds: the model's own tensors, under the model's own names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from frostline.torch._uses.use import Frozen


class Place:
    """A tensor of the model, and where one side of the line has it too."""

    __slots__ = ("mine", "name", "seen", "theirs")

    def __init__(self, mine: dict[str, Any], theirs: dict[str, Any], name: str) -> None:
        self.mine, self.theirs, self.name = mine, theirs, name
        self.seen = theirs.get(name)

    def follow(self) -> None:
        """Takes the tensor that the model has in this place now."""
        now = self.theirs.get(self.name)
        if now is not self.seen:
            self.mine[self.name] = self.seen = now


class Tree:
    """Hangs tensors of a model into another module, under the same names.

    Args:
        model: whose tensors they are.
        top: gets them as parameters and buffers.
    """

    def __init__(self, model: nn.Module, top: nn.Module) -> None:
        self.model, self.top = model, top
        self.places: dict[str, Place] = {}
        self.uses = [module for module in model.modules() if isinstance(module, Frozen)]

    def add(self, tensors: Mapping[str, Any]) -> None:
        """Adds what is not there yet, in place; what is no tensor of the model stays a plain attribute."""
        for target, tensor in tensors.items():
            if target not in self.places:
                self._add(target, tensor)

    def _add(self, target: str, tensor: Any) -> None:
        path, _, name = target.rpartition(".")
        own = _inside(self.model, path)
        for registry in ("_parameters", "_buffers"):
            theirs = getattr(own, registry, {})
            if name in theirs:
                mine = getattr(self._holder(path), registry)
                mine[name] = tensor
                self.places[target] = Place(mine, theirs, name)
                return
        object.__setattr__(self._holder(path), name, tensor)

    def _holder(self, path: str) -> nn.Module:
        holder = self.top
        for name in path.split(".") if path else ():
            if name not in holder._modules:
                holder._modules[name] = nn.Module()
            holder = holder._modules[name]  # type: ignore[assignment]
        return holder

    def follow(self) -> None:
        """Sees to it that all tensors are those that the model has now."""
        for use in self.uses:
            use._refresh()
        for place in self.places.values():
            place.follow()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The model's tensors that are here, by name."""
        self.follow()
        return {target: place.seen for target, place in self.places.items() if place.seen is not None}


def _inside(model: nn.Module, path: str) -> nn.Module | None:
    found: Any = model
    for name in path.split(".") if path else ():
        found = found._modules.get(name) if isinstance(found, nn.Module) else None
    return found if isinstance(found, nn.Module) else None


def trained(model: nn.Module) -> set[str]:
    """The names of all tensors whose values training moves: a frozen use of a layer moves with the layer."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    moved = {storage_of(tensor) for tensor in model.parameters() if tensor.requires_grad}
    return {name for name, tensor in named if storage_of(tensor) in moved}


def storage_of(tensor: torch.Tensor) -> int:
    """The same for two tensors that share their values."""
    return tensor.untyped_storage()._cdata
