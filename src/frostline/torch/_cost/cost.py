"""What a training step of a model costs: now, with all of it trained, and at the limit."""

from __future__ import annotations

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
from frostline.torch._autograd.fake_copy import Shades
from frostline.torch._cost.bills import Ledger
from frostline.torch._cost.lean import is_lean, is_left_alone, lean_shadow, plain_shadow
from frostline.torch._cost.optimizer import Keeping, Maker
from frostline.torch._cost.places import Places
from frostline.torch._cost.step import NoGradientError, Step, step
from frostline.torch._freezing.freezing import plan_of, thaw
from frostline.torch._freezing.survey import Survey, is_trained, survey
from frostline.torch._tensors import described

_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError, AttributeError)


def cost(
    model: nn.Module,
    *example: Any,
    loss: Callable[[Any], Any] | None = None,
    optimizer: Optimizer | Maker | None = None,
    **keywords: Any,
) -> Cost:
    """What a training step of a model costs: as it is frozen now, with all of it trained, and at the limit.

    The step is run on tensors that have a shape and no data: nothing is allocated or computed, and nothing of the
    model moves. So a model on the meta device, of any size, can be asked about; it counts as being where the example
    is. Integers and truths of the example are computed, as a model may look at them: pass a real mask, real tokens.

    Operations are those of products of matrices, convolutions, attention and recurrence, in the kernels that run on
    the device of the example. The peak is that of parameters, buffers, example, optimizer state and all tensors that
    the step holds at its highest point, without what a kernel uses inside; at the limit it is less by what need not
    be saved.

    Of a model that :func:`lean` has made cheap, `now` is what it costs so, with weights folded and blocks chosen; all
    trained and the limit are those of the same model without it, and a memory budget, which computes twice, may keep
    less than the limit. What is compiled costs what it would if it were run as it is written, without lean.

    Args:
        model: the model, in the mode in which it will be trained.
        *example: what it is called with. Tensors may be real, fake, or on the meta device.
        loss: makes what is differentiated from what the model returns; by default all floating outputs, summed.
        optimizer: an optimizer, or what makes one of parameters, for example its class.
        **keywords: what the model is called with, by name.

    Raises:
        CostError: the model stops with an error on this example, or nothing in it needs a gradient.
        UnsupportedError: the model looks at numbers while it runs, or has an attribute that cannot be copied.
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
    ledger = Ledger(read, Keeping(optimizer))
    plain = now = call.step(lambda shades: plain_shadow(read.root, shades))
    if is_lean(read.root) and not is_left_alone(model):
        now = call.step(lambda shades: lean_shadow(read.root, shades))
    trained = call.step(lambda shades: _trained(read.root, shades)) if plan_of(read).frozen else plain
    return ledger.cost(now, trained, plain)


@final
class _Call:
    """One call of a model, which is run on shadows of it."""

    def __init__(
        self, read: Survey, example: tuple[Any, ...], keywords: dict[str, Any], loss: Callable[[Any], Any] | None
    ) -> None:
        self._read, self._example, self._keywords, self._loss = read, example, keywords, loss

    @torch.inference_mode(False)
    def step(self, shadow: Callable[[Shades], nn.Module]) -> Step:
        """Runs a step, with a shadow of its own."""
        shades = Shades(self._example, self._keywords, list(self._read.root.parameters()))
        model = shadow(shades)
        places = Places(model)
        try:
            return step(model, shades.all_of((self._example, self._keywords)), shades, places, self._loss)
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
            "Give it what the model is called with in training: cost(model, *batch), where model(*batch) runs.",
        )

    def _looks_at_numbers(self, places: Places, error: Exception) -> UnsupportedError:
        return UnsupportedError(
            self._expression,
            f"cannot be told: {self._unit(places)} looks at numbers while it runs ({error}), and here are shapes only.",
            "Ask for the cost of the parts that do not: cost(model.encoder, x), and so on.",
        )

    def _needs_data(self, places: Places, error: Exception) -> UnsupportedError:
        return UnsupportedError(
            self._expression,
            f"cannot be told: {self._unit(places)} calls what PyTorch cannot run without data ({error}).",
            "Give your own kernel a form without data, torch.library.register_fake, or ask for the cost of the rest.",
        )

    def _nothing_to_do(self) -> CostError:
        frozen = plan_of(self._read).frozen
        if len(frozen) < len(self._read.parameters):
            return CostError(
                self._expression,
                "finds no floating output that depends on what is trainable.",
                (),
                "Say what is differentiated: cost(model, x, loss=lambda output: output.score).",
            )
        if not frozen:
            return CostError(
                self._expression,
                "finds nothing to take a gradient of: the model has no parameters.",
                (),
                "Ask for the cost of the model that it is a part of, or give an example that requires a gradient.",
            )
        return CostError(
            self._expression,
            f"finds nothing to take a gradient of: all {counted(len(frozen), 'parameter')} are frozen.",
            tuple(path for path in self._read.parameters if path in frozen),
            'Thaw what is to be trained, ft.thaw(model, "head"), or give an example that requires a gradient.',
        )


def _trained(root: nn.Module, shades: Shades) -> nn.Module:
    model = plain_shadow(root, shades, with_uses=False)
    thaw(model)
    for parameter in model.parameters():
        if is_trained(parameter):
            parameter.requires_grad_(True)
    return model
