"""The places of a layer that hold tensors, beside the same places of its view."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from frostline.torch._alias import HOOKS, alias


class Slot:
    """A registered parameter or buffer of the layer, and its counterpart in the view."""

    __slots__ = ("address", "constant", "dtype", "layer", "name", "seen", "view")

    def __init__(self, layer: dict[str, Any], view: dict[str, Any], name: str) -> None:
        self.layer = layer
        self.view = view
        self.name = name
        self._remember(layer[name], view[name])

    def _remember(self, seen: torch.Tensor | None, constant: torch.Tensor | None) -> None:
        self.seen, self.constant = seen, constant
        self.dtype = None if seen is None else seen.dtype
        try:
            self.address = 0 if seen is None else seen.data_ptr()
        except RuntimeError:  # inside a torch.func transform a tensor has no address
            self.address = -1

    @property
    def is_current(self) -> bool:
        """Whether the view still sees the layer's values."""
        now = self.layer.get(self.name)
        if now is None or now is not self.seen:
            return now is self.seen
        return now.data_ptr() == self.address and now.dtype is self.dtype

    def follow(self) -> None:
        """Gives the view an alias of what the layer holds now.

        Where ``torch.func.functional_call`` or a sharding library has put a tensor of its own
        into the view, that tensor stays.
        """
        if self.view.get(self.name) is not self.constant:
            return
        now = self.layer.get(self.name)
        self._remember(now, None if now is None else alias(now))
        self.view[self.name] = self.constant

    def current(self, held: torch.Tensor) -> torch.Tensor:
        """The values that a call must compute with, where the view holds `held`."""
        if torch.compiler.is_exporting() or held is not self.constant:
            return held
        now: torch.Tensor = self.layer[self.name]
        return now

    def give(self) -> None:
        """Hands the layer what somebody assigned to the view, as if the two were one module."""
        assigned = self.view.get(self.name)
        if assigned is self.constant or self.seen is None or assigned is None:
            return
        if isinstance(self.seen, nn.Parameter):
            assigned = nn.Parameter(assigned.detach(), requires_grad=self.seen.requires_grad)
        self.layer[self.name] = assigned
        self.view[self.name] = self.constant


class LoosePlace:
    """A plain attribute that may hold tensors: a cache of biases, a list of parameters."""

    __slots__ = ("layer", "name", "view")

    def __init__(self, layer: dict[str, Any], view: dict[str, Any], name: str) -> None:
        self.layer = layer
        self.view = view
        self.name = name

    def follow(self, constants: Mapping[int, torch.Tensor | None]) -> None:
        """Sets the view's attribute to what the layer's holds now, as constants."""
        if self.name in self.layer:
            self.view[self.name] = _as_constants(self.layer[self.name], constants)


def slots_of(original: nn.Module, copied: nn.Module) -> Iterator[Slot]:
    """A slot for each registered tensor of one module."""
    for layer, view in (
        (original._parameters, copied._parameters),
        (original._buffers, copied._buffers),
    ):
        yield from (Slot(layer, view, name) for name in layer)


def loose_places(original: nn.Module, copied: nn.Module) -> Iterator[LoosePlace]:
    """The plain attributes of one module that hold tensors, or are empty and could."""
    registries = {"_parameters", "_buffers", "_modules", *HOOKS}
    for name, value in vars(original).items():
        if name not in registries and not name.endswith("_hooks") and _may_hold_tensors(value):
            yield LoosePlace(vars(original), vars(copied), name)


def _may_hold_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(_may_hold_tensors(v) for v in value.values() if v != {})
    if isinstance(value, list | tuple):
        return value == [] or any(isinstance(v, torch.Tensor) for v in value)
    return isinstance(value, torch.Tensor)


def _as_constants(value: Any, constants: Mapping[int, torch.Tensor | None]) -> Any:
    if isinstance(value, torch.Tensor):
        constant = constants.get(id(value))
        return value.detach() if constant is None else constant
    if isinstance(value, dict):
        made = copy.copy(value)
        made.update({k: _as_constants(v, constants) for k, v in value.items()})
        return made
    if type(value) in (list, tuple):
        return type(value)(_as_constants(v, constants) for v in value)
    return value
