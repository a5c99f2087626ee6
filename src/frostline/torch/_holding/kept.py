"""What a call of a frozen module may write, and how it is put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from frostline._core.movement import Movement

LARGE = 1 << 14
"""Tensors of more bytes are not copied in each call once a call has left them alone."""


class Held:
    """A large tensor that calls have left alone, and of which there is no copy."""

    __slots__ = ("name", "registry", "tensor", "version")

    def __init__(self, registry: dict[str, Any], name: str) -> None:
        self.registry = registry
        self.name = name
        self.tensor: torch.Tensor = registry[name]
        self.version = self.tensor._version

    def put_back(self) -> bool:
        """Puts the tensor back where another took its place; whether it was written to."""
        self.registry[self.name] = self.tensor
        return self.tensor._version != self.version


def late_write(module: nn.Module, name: str) -> Movement:
    """What to say of a large tensor that a call has written into after others had not."""
    kind = "buffer" if name in module._buffers else "parameter"
    return Movement(
        path=name,
        kind=kind,
        difference=f"It is a large {kind} of a frozen {type(module).__name__}.",
        cause="the module wrote into it in this call, and had left it alone in earlier ones",
        fix=f"Keep what it writes in a {kind} of at most {LARGE} bytes; those are restored.",
    )


class Kept:
    """A tensor that a call may write, and a copy of it for as long as it takes to know."""

    __slots__ = ("copy", "name", "registry", "tensor", "version")

    def __init__(self, registry: dict[str, Any], name: str) -> None:
        self.registry = registry
        self.name = name
        self.tensor: torch.Tensor = registry[name]
        self.copy = self.tensor.detach().clone()
        self.version = self.tensor._version

    def settled(self) -> bool:
        """Whether nothing is left to restore.

        Kernels that update statistics count no version; nothing else in the call reads what
        they write, so that is undone at once.
        """
        if self.registry.get(self.name) is not self.tensor or self.tensor._version != self.version:
            return False
        if self.tensor.is_floating_point():
            self.restore()
        return True

    def restore(self) -> None:
        """Puts the tensor and its values back.

        ``.data`` counts no version, so a graph that saved the tensor earlier stays valid.
        """
        self.registry[self.name] = self.tensor
        self.tensor.data.copy_(self.copy)
        if self.tensor.requires_grad and not self.tensor.is_leaf:  # a value that needs a gradient was written
            self.tensor.detach_()
