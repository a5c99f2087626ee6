"""The proof of a line: the output is bitwise equal, and no sample depends on another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from frostline._core.errors import LineError
from frostline._core.errors.base import counted, first_line
from frostline.torch._autograd.flops import forward_flops
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.sides import ABOVE, CUT, Sides, mixed_samples
from frostline.torch._tensors import tensors


def called(model: nn.Module, inputs: Inputs, expression: str) -> Any:
    """Returns the model's output for the example, and leaves the model unchanged.

    Raises:
        LineError: the model raises an error on the example.
    """
    args, kwargs = inputs.example
    try:
        with untouched(model), _same_random_numbers():
            return model(*args, **kwargs)
    except Exception as error:
        problem = "cannot be drawn: the model does not take the example."
        fix = "Give it a batch as the model is called with: frostline(model, inputs)."
        raise LineError(expression, problem, (first_line(error),), fix) from error


def prove(sides: Sides, want: Any) -> int:
    """Computes the model's output in two parts, and leaves the model unchanged.

    Args:
        sides: the two parts.
        want: the output that `called` returned for the example.

    Returns:
        The floating-point operations of one sample below.

    Raises:
        LineError: the outputs differ bitwise, or the boundary of a sample depends on other samples.
    """
    inputs = sides.inputs
    with untouched(sides.model):
        with _Counting() as counting:
            crossing = [value.detach() for value in sides.below(inputs.leaves)]
        with _same_random_numbers():
            # As a cache returns them, without gaps.
            got = sides.above([value.clone(memory_format=torch.contiguous_format) for value in crossing])
        outputs = list(zip(tensors(want), tensors(got), strict=True))
        _refuse_difference(sides, "output", [(f"output {n}", *pair) for n, pair in enumerate(outputs)])
        if sides.rewritten:
            # A trace loses the user-defined backward of a function, which makes a difference only above the line.
            named = {name: tensor for name, tensor in sides.held[ABOVE].now().items() if tensor.requires_grad}
            wanted, found = (_gradients(output, list(named.values())) for output in (want, got))
            _refuse_difference(sides, "gradient", list(zip(named, wanted, found, strict=True)))
        alone = sides.below(inputs.with_first_alone())
    pairs = zip(sides.boundary, crossing, alone, strict=True)
    if mixed := [each.name for each, one, other in pairs if not _same_bits(one[0], other[0])]:
        raise mixed_samples(sides.expression, mixed)
    return counting.flops // inputs.batch


class _Counting(TorchDispatchMode):
    """Counts the floating-point operations of kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = kernel(*args, **(kwargs or {}))
        self.flops += forward_flops(kernel, args, made)
        return made


def _gradients(output: Any, parameters: list[torch.Tensor]) -> list[Any]:
    floating = [tensor for tensor in tensors(output) if tensor.requires_grad]
    return list(torch.autograd.grad(floating, parameters, [torch.ones_like(t) for t in floating], allow_unused=True))


def _refuse_difference(sides: Sides, what: str, pairs: Sequence[tuple[str, Any, Any]]) -> None:
    differing = []
    for name, one, other in pairs:
        if _same_bits(one, other):
            continue
        comparable = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) and one.shape == other.shape
        distance = f"by up to {float((one.double() - other.double()).abs().max()):.1e}" if comparable else "in kind"
        differing.append(f"{name}: {distance}")
    if differing:
        problem = f"computes something else in two parts: {len(differing)} of {counted(len(pairs), what)} differ."
        raise LineError(sides.expression, problem, tuple(differing), CUT)


def _same_bits(one: Any, other: Any) -> bool:
    """Whether two tensors are bitwise equal, with NaNs in the same places."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one is other
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


@contextmanager
def untouched(model: nn.Module) -> Iterator[list[str]]:
    """Undoes writes of calls into buffers in this context; afterwards the list has the names of these buffers."""
    before = [(name, buffer, buffer.detach().clone()) for name, buffer in model.named_buffers()]
    written: list[str] = []
    try:
        yield written
    finally:
        for name, buffer, content in before:
            if not _same_bits(buffer, content):
                written.append(name)
                buffer.data.copy_(content)


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Draws the same random numbers in each such context, and restores the generators afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
