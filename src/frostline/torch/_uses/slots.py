"""The places where a layer holds tensors, each with its counterpart in the view."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from frostline._core.errors import UnsupportedError
from frostline.torch._tensors import addresses, is_distributed, whole
from frostline.torch._uses.structure import alias
from frostline.torch._wrappers import is_gathered_for_calls


class TensorSlot:
    """A registered parameter or buffer of the layer, and its counterpart in the view."""

    __slots__ = ("address", "constant", "layer", "layout", "module", "name", "norm", "seen", "view")

    def __init__(self, layer: nn.Module, view: nn.Module, registry: str, name: str) -> None:
        self.module = layer
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
            self.address = () if seen is None else addresses(seen)
        except RuntimeError:  # inside a torch.func transform a tensor has no address
            self.address = (-1,)

    @property
    def is_current(self) -> bool:
        """Whether the view still sees the layer's values."""
        now: torch.Tensor | None = self.layer.get(self.name)
        if now is None or now is not self.seen or self.constant is None:
            return now is self.seen
        return self._lies_at(now) and addresses(self.constant) == self.address

    def _lies_at(self, now: torch.Tensor) -> bool:
        return addresses(now) == self.address and (now.dtype, now.shape, now.stride()) == self.layout

    def follow(self) -> None:
        """Gives the view an alias of what the layer holds now.

        Where ``torch.func.functional_call`` or a sharding library has put a tensor of its own
        into the view, that tensor stays. Where somebody has given the view's tensor other data
        (``parameter.data = ...``), the layer gets it, as it would if the two were one module.

        Raises:
            UnsupportedError: a sharding library has made two tensors of the one that layer and view share.
        """
        now: torch.Tensor | None = self.layer.get(self.name)
        if (held := self.view.get(self.name)) is not self.constant:
            if held is not None and now is not None and is_distributed(held) and is_distributed(now):
                kind = type(self.module).__name__
                raise UnsupportedError(
                    f"Frozen({kind})",
                    f"was sharded together with the layer itself, which made two tensors of {self.name!r}: the use "
                    "would not see how the layer trains.",
                    "Leave the use out of the model, and call it: frozen_call(self.layer, x).",
                )
            return
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
        return held is not self.constant or self.is_shard or self._may_move_before_backward

    @property
    def is_shard(self) -> bool:
        """Whether the layer holds a shard, which its sharding library gathers before a call of the layer itself."""
        return self.seen is not None and is_distributed(self.seen) and is_gathered_for_calls(self.module)

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
        if self.is_shard:
            return whole(now)
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
