"""The cost of a training step of a model: now, with everything trained, and at the limit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.optim import Optimizer

from frostline._core.errors import BudgetError, CostError, UnsupportedError
from frostline._core.errors.base import counted
from frostline._core.reporting.cost import Cost
from frostline.torch._autograd.fake_copy import FakeTensors
from frostline.torch._cost.optimizer import Keeping, Maker
from frostline.torch._cost.places import Places
from frostline.torch._cost.step import NoGradientError, Step, step
from frostline.torch._cost.units import cost_of
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import Survey, survey
from frostline.torch._holding.mode import hold_all
from frostline.torch._holding.patch import patches
from frostline.torch._lean.copies import lean_copy, plain_copy
from frostline.torch._lean.slimming import Slimming
from frostline.torch._tensors import described, is_differentiable
from frostline.torch._wrappers import is_compiled

_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError, AttributeError)


def cost(
    model: nn.Module,
    *example: Any,
    loss: Callable[[Any], Any] | None = None,
    optimizer: Optimizer | Maker | None = None,
    **keywords: Any,
) -> Cost:
    """Computes the cost of a training step of a model: as it is frozen now, with everything trained, and at the limit.

    The step runs on tensors with a shape and without data, so it allocates, computes and changes nothing. The model may
    have any size and may be on the meta device; it counts as being on the device of the example.
    Integers and bools of the example keep their values, because a model may read them: pass a real mask and real
    tokens.

    Operations are those of matrix products, convolutions, attention and recurrence, in the kernels that run on the
    device of the example. The peak counts parameters, buffers, example, optimizer state and all tensors that the step
    holds at its highest point, without the workspace inside a kernel. At the limit it is lower by the bytes that need
    not be saved.

    For a model that :func:`lean` has changed, `now` includes lean, with folded weights and chosen blocks, and the other
    two costs do not. A memory budget, which computes blocks twice, may keep less than the limit. A compiled model costs
    as much as the same model without compilation and without lean.

    Args:
        model: the model, in the mode in which it will be trained.
        *example: the arguments of a call. Tensors may be real, fake, or on the meta device.
        loss: a function from the output of the model to the value to differentiate; by default the sum of all
            floating outputs.
        optimizer: an optimizer, or a function that makes one from parameters, for example its class.
        **keywords: the keyword arguments of a call.

    Raises:
        CostError: the model raises an error on this example, or nothing in it needs a gradient.
        UnsupportedError: the model reads values while it runs, or has an attribute that cannot be copied.
        BudgetError: the memory budget of a lean model cannot be met.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> _ = freeze(model, "0")
        >>> found = cost(model, torch.ones(3, 4), optimizer=torch.optim.AdamW)
        >>> found.now.forward_flops, found.now.input_gradient_flops, found.now.weight_gradient_flops
        (288, 0, 96)
        >>> found.now.saved_bytes, found.now.gradient_bytes, found.now.optimizer_bytes
        (96, 72, 144)
    """
    read = survey(model)
    call = _Call(read, example, keywords, loss)
    plain = now = call.step(plain_copy)
    if _is_lean(read.root) and not _is_compiled_whole(model, read.root):
        now = call.step(lean_copy)
    trained = call.step(_trained_copy) if plan_of(read).frozen else plain
    return cost_of(read, Keeping(optimizer), now, trained, plain)


def _trained_copy(root: nn.Module, tensors: FakeTensors) -> nn.Module:
    """Returns a fake copy in which everything trains."""
    made = plain_copy(root, tensors, with_uses=False)
    hold_all(dict.fromkeys(made.modules()))
    for parameter in made.parameters():
        if is_differentiable(parameter):
            parameter.requires_grad_(True)
    return made


def _is_lean(root: nn.Module) -> bool:
    hooks = (hook for module in root.modules() for hook in module._forward_pre_hooks.values())
    return any(isinstance(hook, Slimming) for hook in hooks) or any(True for _ in patches(root))


def _is_compiled_whole(model: nn.Module, root: nn.Module) -> bool:
    """Whether the whole model is compiled, so that lean has no effect."""
    outer = itertools.takewhile(lambda module: module is not root, model.modules())
    return any(is_compiled(module) or module._compiled_call_impl is not None for module in (*outer, root))


@final
class _Call:
    """A call of the model with the example, which can be run on fake copies."""

    def __init__(
        self, read: Survey, example: tuple[Any, ...], keywords: dict[str, Any], loss: Callable[[Any], Any] | None
    ) -> None:
        self._read, self._example, self._keywords, self._loss = read, example, keywords, loss

    @torch.inference_mode(False)
    def step(self, copied: Callable[[nn.Module, FakeTensors], nn.Module]) -> Step:
        """Runs a step on a fake copy of its own."""
        tensors = FakeTensors(self._example, self._keywords, list(self._read.root.parameters()))
        model = copied(self._read.root, tensors)
        places = Places(model)
        try:
            return step(model, tensors.all_of((self._example, self._keywords)), tensors, places, self._loss)
        except (BudgetError, UnsupportedError):
            raise
        except NoGradientError:
            raise self._nothing_to_do() from None
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise self._looks_at_numbers(places, error) from None
        except (UnsupportedFakeTensorException, UnsupportedOperatorException) as error:
            raise self._needs_data(places, error) from None
        except _FAILURES as error:
            raise self._stopped(places, error) from error

    @property
    def _expression(self) -> str:
        given = [described(value) for value in self._example]
        given += [f"{name}={described(value)}" for name, value in self._keywords.items()]
        return f"cost({', '.join(['model', *given])})"

    def _unit(self, places: Places) -> str:
        kind = type(self._read.modules[places.current]).__name__
        return f"{places.current!r} ({kind})" if places.current else f"the model ({kind})"

    def _stopped(self, places: Places, error: Exception) -> CostError:
        module = self._read.modules[places.current]
        shapes = {name: described(tensor) for name, tensor in module.named_parameters(recurse=False)}
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return CostError(
            self._expression,
            f"stops in {self._unit(places)}, called with {described(places.given)}: {reason}",
            tuple(f"{name} is {shape}" for name, shape in shapes.items()),
            "Pass the arguments of a training call: cost(model, *batch), where model(*batch) runs.",
        )

    def _looks_at_numbers(self, places: Places, error: Exception) -> UnsupportedError:
        return UnsupportedError(
            self._expression,
            f"cannot be computed: {self._unit(places)} reads values ({error}), but a fake run has only shapes.",
            "Ask for the cost of the parts that do not: cost(model.encoder, x), and so on.",
        )

    def _needs_data(self, places: Places, error: Exception) -> UnsupportedError:
        return UnsupportedError(
            self._expression,
            f"cannot be computed: {self._unit(places)} calls an operator that needs data ({error}).",
            "Register a fake kernel with torch.library.register_fake, or ask for the cost of the other parts.",
        )

    def _nothing_to_do(self) -> CostError:
        frozen = plan_of(self._read).frozen
        if len(frozen) < len(self._read.parameters):
            return CostError(
                self._expression,
                "finds no floating output that depends on a trainable parameter.",
                (),
                "Pass the loss: cost(model, x, loss=lambda output: output.score).",
            )
        if not frozen:
            return CostError(
                self._expression,
                "has nothing to differentiate: the model has no parameters.",
                (),
                "Ask for the cost of the whole model, or pass an example that requires a gradient.",
            )
        return CostError(
            self._expression,
            f"has nothing to differentiate: all {counted(len(frozen), 'parameter')} are frozen.",
            tuple(path for path in self._read.parameters if path in frozen),
            'Thaw a part, ft.thaw(model, "head"), or pass an example that requires a gradient.',
        )
