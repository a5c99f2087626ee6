"""Folded weights: the weights of a convolution with the batch norm behind it folded in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules import module as module_globals
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._python_dispatch import _disable_current_modes

from frostline.torch._lean.pairs import Pair

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in HOOKS)


@final
class Folded:
    """The folded weights of a pair, computed in float32, and again when one of the originals has a new value.

    Another storage or a higher version counts as a new value. Batch norm changes its statistics without counting a
    version, but counts its batches. So ``num_batches_tracked`` is compared, too, which detects a call in training mode.
    """

    def __init__(self, pair: Pair) -> None:
        self.conv: Any = pair.conv
        self.norm: Any = pair.norm
        self.forget()

    def __getstate__(self) -> dict[str, Any]:
        return {"conv": self.conv, "norm": self.norm}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.conv, self.norm = state["conv"], state["norm"]
        self.forget()

    def forget(self) -> None:
        """Makes the next call fold again."""
        self.weight: torch.Tensor | None = None
        self.bias: torch.Tensor | None = None
        self._seen: tuple[Any, ...] = ()
        self._storages: list[StorageWeakRef] = []

    @property
    def is_possible(self) -> bool:
        """Whether the pair may be folded now: frozen, in evaluation mode, in float32, and without hooks of the user."""
        norm = self.norm
        if norm.training:
            self.forget()
        return (
            not norm.training
            and norm.running_mean is not None
            and norm.running_var is not None
            and all(map(_is_constant, self._parameters()))
            and not (is_watched(self.conv) or is_watched(norm) or _is_everything_watched())
        )

    def call(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Computes the result of the norm from the input of the convolution.

        Args:
            x: a batch, in float32.
            args: further arguments of the convolution.
            kwargs: further arguments of the convolution.
        """
        self._refresh()
        # A module of the same class, so that its own forward pads and checks as usual.
        folded = object.__new__(type(self.conv))
        folded.__dict__.update(vars(self.conv), _parameters={"weight": self.weight, "bias": self.bias})
        return type(self.conv).forward(folded, x, *args, **kwargs)

    def _parameters(self) -> Iterator[torch.Tensor | None]:
        for module in (self.conv, self.norm):
            yield module.weight
            yield module.bias

    def _tensors(self) -> list[torch.Tensor]:
        held = (*self._parameters(), *self.norm._buffers.values())
        return [tensor for tensor in held if tensor is not None]

    def _refresh(self) -> None:
        tensors = self._tensors()
        now = (self.norm.eps, *((tensor.untyped_storage()._cdata, tensor._version) for tensor in tensors))
        if self.weight is not None and now == self._seen:
            return
        # A weak reference keeps the identity of a storage unique, without its memory.
        self._storages = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors]
        self._seen = now
        with _disable_current_modes(), torch.inference_mode(False), torch.no_grad():
            self.weight, self.bias = self._fold()

    def _fold(self) -> tuple[torch.Tensor, torch.Tensor]:
        conv, norm = self.conv, self.norm
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        bias = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
        bias = bias * scale if norm.bias is None else bias * scale + norm.bias
        return conv.weight * _along_outputs(conv, scale), bias


def _along_outputs(conv: Any, scale: torch.Tensor) -> torch.Tensor:
    """Reshapes one number for each output channel so that it multiplies the weight of the convolution."""
    ones = (1,) * (conv.weight.dim() - 2)
    if not isinstance(conv, _ConvTransposeNd):
        return scale.view(-1, 1, *ones)
    # Inputs × (outputs of a group): the rows of a group are multiplied by the group's own part.
    groups = scale.view(conv.groups, 1, -1)
    return groups.expand(-1, conv.in_channels // conv.groups, -1).reshape(conv.in_channels, -1, *ones)


def _is_constant(parameter: torch.Tensor | None) -> bool:
    # functional_call and torch.func replace parameters by tensors of other types.
    if parameter is None:
        return True
    # A fake copy has fake parameters.
    is_plain = isinstance(parameter, nn.Parameter) and type(parameter) in (nn.Parameter, FakeTensor)
    is_plain = is_plain and not parameter.is_inference()
    return is_plain and parameter.dtype is torch.float32 and not parameter.requires_grad


def is_watched(module: nn.Module) -> bool:
    """Whether the module has a hook of the user, which would see its input or output."""
    return not all(_is_ours(hook) for name in HOOKS for hook in module.__dict__[name].values())


def _is_everything_watched() -> bool:
    return not all(_is_ours(hook) for name in GLOBAL_HOOKS for hook in getattr(module_globals, name, {}).values())


def _is_ours(hook: Any) -> bool:
    owner = type(getattr(hook, "__self__", hook))
    return getattr(owner, "__module__", "").startswith("frostline.")
