"""The tensors that the names of a binding stand for, while modules and tensors of the model are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import nn
from torch.optim import Optimizer

from frostline._core.errors import UnsupportedError
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._training.moments import ParkedMoments, State


@final
class Members:
    """Finds the parameters of a binding again by their names.

    Attributes:
        root: the model.
        names: the parameters, in model order.
        sites: where each is.
        owned: the tensor that each was when it was last looked up.
    """

    def __init__(self, read: Survey, names: Sequence[str]) -> None:
        self.root, self.names = read.root, names
        self._children = _children(read)
        self.sites = {path: read.sites[path][0] for path in names}
        self.owned: dict[str, torch.Tensor] = {path: read.parameters[path] for path in names}

    def find_again(self, optimizer: Optimizer, parked: ParkedMoments) -> set[int]:
        """Follows modules that replaced others, in place, and returns the ``id`` of each earlier tensor."""
        if all(module._modules.get(local) is child for module, local, child in self._children):
            return set()
        try:
            read = survey(self.root)
        except UnsupportedError:
            return set()  # A lazy layer, which gets its shape from the first batch.
        self._children = _children(read)
        before = dict(self.owned)
        for path in self.names:
            if path in read.sites and self.sites[path] not in read.sites[path]:
                self.sites[path], self.owned[path] = read.sites[path][0], read.parameters[path]
                parked.take(path)
        present = {id(tensor) for tensor in self.owned.values()}
        for tensor in before.values():
            if id(tensor) not in present:
                optimizer.state.pop(tensor, None)
        return set(map(id, before.values()))

    def present(self) -> dict[str, torch.Tensor | None]:
        """Returns the tensors that are there now; of names that were tied since, the first one has the tensor."""
        found: dict[str, torch.Tensor | None] = {}
        seen: set[int] = set()
        for path, (module, local) in self.sites.items():
            tensor = module._parameters[local]
            found[path] = None if id(tensor) in seen else tensor
            seen.add(id(tensor))
        return found

    def carry(
        self, optimizer: Optimizer, parked: ParkedMoments, path: str, tensor: torch.Tensor | None, state: State | None
    ) -> None:
        """Carries the state of one parameter to where it belongs now, in place."""
        if tensor is not None and tensor.shape != self.owned[path].shape:
            # Moments of another shape are of no use.
            state = None
            parked.take(path)
        if tensor is None or not tensor.requires_grad:
            parked.park(path, state)
        elif moments := state or parked.take(path):
            optimizer.state[tensor] = moments
        if tensor is not None:
            self.owned[path] = tensor


def trains(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad


def _children(read: Survey) -> tuple[tuple[nn.Module, str, nn.Module | None], ...]:
    return tuple((module, *entry) for module in read.modules.values() for entry in module._modules.items())
