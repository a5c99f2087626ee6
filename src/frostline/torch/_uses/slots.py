"""The places where a layer holds tensors, each with its counterpart in the view."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from frostline.torch._uses.structure import alias


class TensorSlot:
    """A registered parameter or buffer of the layer, and its counterpart in the view."""

    __slots__ = ("address", "constant", "layer", "layout", "name", "norm", "seen", "view")

    def __init__(self, layer: nn.Module, view: nn.Module, registry: str, name: str) -> None:
        self.layer: dict[str, Any] = getattr(layer, registry)
        self.view: dict[str, Any] = getattr(view, registry)
        self.name = name
        self._remember(self.layer[name], self.view[name])
        is_statistic = registry == "_buffers" and isinstance(layer, _NormBase)
        self.norm = layer if is_statistic else None

    def _remember(self, seen: torch.Tensor | None, constant: torch.Tensor | None) -> None:
        self.seen, self.constant = seen, constant
        self.layout = None if seen is None else (seen.dtype, seen.shape, seen.stride())
        try:
            self.address = 0 if seen is None else seen.data_ptr()
        except RuntimeError:  # inside a torch.func transform a tensor has no address
            self.address = -1

    @property
    def is_current(self) -> bool:
        """Whether the view still sees the layer's values."""
        now: torch.Tensor | None = self.layer.get(self.name)
        if now is None or now is not self.seen or self.constant is None:
            return now is self.seen
        return self._lies_at(now) and self.constant.data_ptr() == self.address

    def _lies_at(self, now: torch.Tensor) -> bool:
        return now.data_ptr() == self.address and (now.dtype, now.shape, now.stride()) == self.layout

    def follow(self) -> None:
        """Gives the view an alias of what the layer holds now.

        Where ``torch.func.functional_call`` or a sharding library has put a tensor of its own
        into the view, that tensor stays. Where somebody has given the view's tensor other data
        (``parameter.data = ...``), the layer gets it, as it would if the two were one module.
        """
        if self.view.get(self.name) is not self.constant:
            return
        now: torch.Tensor | None = self.layer.get(self.name)
        if now is not None and self.constant is not None and self._stayed(now):
            now.data = self.constant.data
        self._remember(now, None if now is None else alias(now))
        self.view[self.name] = self.constant

    def _stayed(self, now: torch.Tensor) -> bool:
        try:
            return now is self.seen and self._lies_at(now)
        except RuntimeError:  # inside a torch.func transform a tensor has no address
            return False

    @property
    def is_swapped(self) -> bool:
        """Whether a call must compute with another tensor than the one in the view."""
        held = self.view[self.name]
        if held is None or torch.compiler.is_exporting():
            return False
        return held is not self.constant or self._may_move_before_backward

    @property
    def _may_move_before_backward(self) -> bool:
        # A norm saves its statistics for backward, and a training call of the layer in between
        # would change them there. Its kernels do not advance the version, so the input's gradient
        # would be wrong without a word.
        return self.norm is not None and self.norm.training and torch.is_grad_enabled()

    def current(self, held: torch.Tensor) -> torch.Tensor:
        """Returns the values that a call must compute with, if the view holds `held`."""
        if held is not self.constant:
            return held
        now: torch.Tensor = self.layer[self.name]
        return now.clone() if self._may_move_before_backward else now

    def give(self) -> None:
        """Gives the layer what somebody assigned to the view, as if the two were one module, in place."""
        assigned = self.view.get(self.name)
        if assigned is self.constant or self.seen is None or assigned is None:
            return
        if isinstance(self.seen, nn.Parameter):
            assigned = nn.Parameter(assigned.detach(), requires_grad=self.seen.requires_grad)
        self.layer[self.name] = assigned
        self.view[self.name] = self.constant
