"""The trainable side of the line, as a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from torch import nn


@dataclass(frozen=True)
class Upper:
    """What a module above the line refers to and does not hold."""

    model: nn.Module
    follow: Callable[[], None]
    run: Callable[..., Any]


@final
class Above(nn.Module):
    """Computes what the model returns from what crosses the line, and trains as the model does.

    Its parameters and buffers are the model's own objects, under the model's own names, so an optimizer that was made
    from the model goes on training it, and so does one that is made from here. It has no mode and no device of its
    own: ``above.train()`` is ``model.train()``, and ``above.to("cuda")`` is ``model.to("cuda")``.

    Args:
        model: the model whose upper part it is.
        top: holds the model's tensors that are above.
        follow: sees to it that they are those that the model has now.
        run: computes the output from the boundary.
    """

    _upper: Upper

    def __init__(self, model: nn.Module, top: nn.Module, follow: Callable[[], None], run: Callable[..., Any]) -> None:
        super().__init__()
        held = {registry: getattr(top, registry) for registry in ("_modules", "_parameters", "_buffers")}
        # Past nn.Module, which would make the model a part of this.
        vars(self).update(held, _upper=Upper(model, follow, run), training=model.training)

    def forward(self, *boundary: torch.Tensor) -> Any:
        """What the model returns.

        Args:
            boundary: what ``line.below`` gave, samples first.
        """
        return self._upper.run(boundary)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - as nn.Module.train
        """Puts the model into training or evaluation mode; what is frozen stays held."""
        self._upper.model.train(mode)
        return super().train(mode)

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        """As in ``nn.Module``. Every walk comes through here, so it sees what the model has now."""
        self._upper.follow()
        return super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The part of the model's state dict that is above."""
        self._upper.follow()
        return super().state_dict(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - as nn.Module
        self._upper.model._apply(fn, recurse)
        self._upper.follow()
        return self

    def extra_repr(self) -> str:
        """Whose upper part it is."""
        return f"of {type(self._upper.model).__name__}"
