"""Which parameters were thawed after the last backward, so that they cannot have a gradient yet."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

_GRADIENTS = WeakIdKeyDictionary()
"""Parameter -> a gradient that there was in its model when it was thawed."""


@dataclass(frozen=True, slots=True)
class LastGradient:
    """A gradient as the last backward left it: the next one adds to it, or makes another."""

    parameter: weakref.ref[nn.Parameter]
    gradient: weakref.ref[torch.Tensor]
    version: int

    @classmethod
    def of(cls, parameters: Iterable[nn.Parameter]) -> LastGradient | None:
        """Returns the gradient of one of the parameters, if any has one."""
        for parameter in parameters:
            if (gradient := parameter.grad) is not None:
                return cls(weakref.ref(parameter), weakref.ref(gradient), gradient._version)
        return None

    @property
    def is_last(self) -> bool:
        """Whether it is still there, as it was."""
        parameter, gradient = self.parameter(), self.gradient()
        is_there = parameter is not None and gradient is not None and parameter.grad is gradient
        return is_there and gradient is not None and gradient._version == self.version


@contextmanager
def thaws_noted(parameters: Collection[nn.Parameter]) -> Iterator[None]:
    """Takes note of the parameters of a model that are thawed in the context."""
    frozen = [parameter for parameter in parameters if not parameter.requires_grad]
    last = LastGradient.of(parameters)
    yield
    for parameter in frozen if last is not None else ():
        if parameter.requires_grad:
            _GRADIENTS[parameter] = last


def is_fresh(parameter: nn.Parameter) -> bool:
    """Whether a parameter was thawed after the last backward, as far as can be seen."""
    last: LastGradient | None = _GRADIENTS.get(parameter)
    return last is not None and last.is_last
