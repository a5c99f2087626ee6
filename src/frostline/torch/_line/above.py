"""The trainable side of the line, as a module."""

from __future__ import annotations

from typing import Any, Self, final

import torch
from torch import nn

from frostline._core.errors import LineError
from frostline.torch._line.sides import ABOVE, Sides
from frostline.torch._tensors import described, dtype_name


@final
class AboveModule(nn.Module):
    """Computes the model's output from the boundary, and trains as the model does.

    Its parameters and buffers are the model's own objects, under the model's own names, so an optimizer trains them
    whether it was created from the model or from this module. It shares the mode and the device of the model:
    ``above.train()`` is ``model.train()``, and ``above.to("cuda")`` is ``model.to("cuda")``.

    Args:
        sides: both sides of the line.
    """

    def __init__(self, sides: Sides) -> None:
        super().__init__()
        self._sides = sides
        top = sides.held[ABOVE].top
        vars(self).update({registry: getattr(top, registry) for registry in ("_modules", "_parameters", "_buffers")})
        self.training = sides.model.training

    def forward(self, *boundary: torch.Tensor) -> Any:
        """Computes the model's output.

        Args:
            boundary: the values that ``line.below`` returned, samples first.

        Raises:
            LineError: the values do not fit the boundary, or a parameter below has been thawed.
        """
        wanted = [(each.shape, each.dtype) for each in self._sides.boundary]
        found = [(tuple(value.shape[1:]), dtype_name(value.dtype)) for value in boundary]
        if wanted != found or len({len(value) for value in boundary}) != 1:
            drawn = ", ".join(map(str, self._sides.boundary))
            fix = "Hand it what line.below returns, samples first: line.above(*line.below(*inputs))."
            problem = "does not fit the line, which was drawn for:"
            given = ", ".join(map(described, boundary))
            raise LineError(f"line.above({given})", problem, (f"{drawn}, for each sample",), fix)
        self._sides.refuse_thawed()
        return self._sides.above(boundary)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - as nn.Module.train
        """Sets the model to training or evaluation mode, in place; frozen modules stay held."""
        self._sides.model.train(mode)
        return super().train(mode)

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        """As in ``nn.Module``. Every walk comes through here, so it finds the model's present tensors."""
        self._sides.held[ABOVE].follow()
        return super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the part of the model's state dict that is above."""
        self._sides.held[ABOVE].follow()
        return super().state_dict(*args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - as nn.Module
        self._sides.model._apply(fn, recurse)
        self._sides.held[ABOVE].follow()
        return self

    def extra_repr(self) -> str:
        """Names the model."""
        return f"of {type(self._sides.model).__name__}"
