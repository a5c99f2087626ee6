"""The bytes that an optimizer keeps, measured by a step of it on tensors without data."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.optim import LBFGS, Optimizer

from frostline._core.errors import CostError
from frostline.torch._tensors import described
from frostline.torch._training.moments import state_bytes

Maker = Callable[[list[torch.Tensor]], Optimizer]


@final
class Keeping:
    """The bytes that an optimizer keeps for each parameter, without counters.

    Args:
        optimizer: an optimizer, whose groups are followed; a function that makes one, such as a class; or None.
    """

    def __init__(self, optimizer: Optimizer | Maker | None) -> None:
        self._optimizer = optimizer
        self._groups = optimizer.param_groups if isinstance(optimizer, Optimizer) else []
        self._group_of = {id(p): number for number, group in enumerate(self._groups) for p in group["params"]}
        self._known: dict[object, int] = {}

    def now(self, parameter: torch.Tensor, *, is_moved: bool) -> int:
        """Bytes for a parameter of the model: those that exist already, or those that the next step will make.

        Args:
            parameter: a parameter of the model.
            is_moved: whether it gets a gradient.
        """
        if isinstance(self._optimizer, Optimizer):
            kept = state_bytes(self._optimizer, parameter)
            if kept or id(parameter) not in self._group_of:
                return kept
        return self.predicted(parameter) if is_moved else 0

    def predicted(self, parameter: torch.Tensor) -> int:
        """Returns the bytes that a step makes for a parameter with a gradient, in its group or in the first one."""
        if self._optimizer is None:
            return 0
        if self._groups and id(parameter) not in self._group_of:
            with suppress(CostError):
                return self._cached(parameter, 0)
            return 0
        return self._cached(parameter, self._group_of.get(id(parameter), 0))

    def _cached(self, parameter: torch.Tensor, group: int) -> int:
        key = (tuple(parameter.shape), parameter.dtype, group)
        if key not in self._known:
            self._known[key] = self._measured(parameter, group)
        return self._known[key]

    def _measured(self, parameter: torch.Tensor, group: int) -> int:
        with FakeTensorMode():
            # A state without dimensions would look like a counter, so a number becomes a row of one.
            tensor = torch.empty(parameter.shape or (1,), dtype=parameter.dtype, requires_grad=True)
            tensor.grad = torch.empty_like(tensor)
            try:
                stepped = self._made(tensor, group)
                with suppress(DataDependentOutputException):  # the state is made before the first look at a number
                    _step(stepped)
            except (ValueError, TypeError, RuntimeError) as error:
                raise self._refused(tensor, error) from error
            return state_bytes(stepped, tensor)

    def _refused(self, tensor: torch.Tensor, error: Exception) -> CostError:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        of = self._optimizer if isinstance(self._optimizer, type) else type(self._optimizer)
        return CostError(
            f"cost(model, ..., optimizer={getattr(self._optimizer, '__name__', of.__name__)})",
            f"cannot be computed: the optimizer does not take {described(tensor)}: {reason}.",
            (),
            "Pass an optimizer of this model's parameters, or a class: optimizer=torch.optim.AdamW.",
        )

    def _made(self, tensor: torch.Tensor, group: int) -> Optimizer:
        if not isinstance(self._optimizer, Optimizer):
            assert self._optimizer is not None
            made = self._optimizer([tensor])
            if not isinstance(made, Optimizer):
                raise TypeError(f"it returns a value of type {type(made).__name__}, which is not an optimizer")
            return made
        made = copy.copy(self._optimizer)
        made.state = defaultdict(dict)
        made.param_groups = [{**self._groups[group], "params": [tensor]}]
        # Its hooks belong to the caller, and expect the caller's tensors.
        hooks: dict[str, Any] = {name: OrderedDict() for name in vars(made) if name.endswith("_hooks")}
        vars(made).update(hooks)
        return made


def _step(optimizer: Optimizer) -> None:
    # LBFGS evaluates the loss repeatedly; its state depends on its progress.
    if not isinstance(optimizer, LBFGS):
        type(optimizer).step(optimizer)
