"""Whether a line keeps what it says: the same output, bit for bit, and each sample by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from frostline.features.boundary import Boundary
from frostline.torch._autograd.flops import forward_flops
from frostline.torch._line import refusals
from frostline.torch._line.inputs import Inputs


class Sides(Protocol):
    """What computes both sides of a line."""

    model: nn.Module
    tops: tuple[nn.Module, nn.Module]
    identity: str
    rewritten: set[str]

    @property
    def boundary(self) -> tuple[Boundary, ...]:
        """What crosses the line."""

    def below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """The boundary of samples."""

    def above(self, boundary: Sequence[torch.Tensor]) -> Any:
        """What the model returns, from the boundary."""

    def module(self, leaves: Sequence[Any]) -> nn.Module | None:
        """What is below as a module, where that is known."""

    def tensors(self, side: int) -> Mapping[str, torch.Tensor]:
        """The tensors that the model has now, below (0) or above (1) the line, by name."""

    def follow(self) -> None:
        """Sees to it that what is above holds the tensors that the model has now."""


def called(model: nn.Module, inputs: Inputs, expression: str) -> Any:
    """What the model returns for the example; afterwards it is what it was before.

    Raises:
        LineError: the model does not take the example.
    """
    args, kwargs = inputs.example
    try:
        with untouched(model), _same_chance():
            return model(*args, **kwargs)
    except Exception as error:
        raise refusals.no_example(expression, error) from error


def prove(sides: Sides, inputs: Inputs, want: Any, expression: str) -> int:
    """Computes in two parts what the model returned; afterwards the model is what it was before.

    Args:
        sides: the two parts.
        inputs: the example.
        want: what `called` gave for it.
        expression: what the user wrote.

    Returns:
        The floating-point operations of one sample below.

    Raises:
        LineError: the two differ in a bit, or what a sample has at the line depends on the other samples.
    """
    with untouched(sides.model):
        with _Counting() as counting:
            crossing = [value.detach() for value in sides.below(inputs.leaves)]
        with _same_chance():
            # As a cache gives them back: without gaps.
            got = sides.above([value.clone(memory_format=torch.contiguous_format) for value in crossing])
        _compare(want, got, expression)
        if sides.rewritten:
            _compare_gradients(sides, want, got, expression)
        alone = sides.below(pytree.tree_leaves(inputs.alone()))
    _refuse_mixed(sides, crossing, alone, expression)
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


def _compare(want: Any, got: Any, expression: str) -> None:
    pairs = [
        (f"output {place}", one, other)
        for place, (one, other) in enumerate(zip(pytree.tree_leaves(want), pytree.tree_leaves(got), strict=True))
        if isinstance(one, torch.Tensor)
    ]
    _refuse_otherwise(expression, "output", pairs)


def _compare_gradients(sides: Sides, want: Any, got: Any, expression: str) -> None:
    # A trace has what a function's forward does and not the backward that was written for it. Below the line that
    # is all the same.
    named = {name: tensor for name, tensor in sides.tensors(1).items() if tensor.requires_grad}
    one, other = (_gradients(output, list(named.values())) for output in (want, got))
    _refuse_otherwise(expression, "gradient", list(zip(named, one, other, strict=True)))


def _gradients(output: Any, parameters: list[torch.Tensor]) -> list[Any]:
    floating = [t for t in pytree.tree_leaves(output) if isinstance(t, torch.Tensor) and t.requires_grad]
    return list(torch.autograd.grad(floating, parameters, [torch.ones_like(t) for t in floating], allow_unused=True))


def _refuse_otherwise(expression: str, what: str, pairs: Sequence[tuple[str, Any, Any]]) -> None:
    differing = [f"{name}: {_distance(one, other)}" for name, one, other in pairs if not same_bits(one, other)]
    if differing:
        raise refusals.otherwise(expression, what, differing, len(pairs))


def same_bits(one: Any, other: Any) -> bool:
    """Whether two tensors are the same bit for bit; what is not a number must be so in the same places."""
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return one is other
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())


def _distance(one: Any, other: Any) -> str:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor) or one.shape != other.shape:
        return "of another kind"
    return f"by up to {float((one.double() - other.double()).abs().max()):.1e}"


def _refuse_mixed(sides: Sides, crossing: Sequence[Any], alone: Sequence[Any], expression: str) -> None:
    pairs = zip(sides.boundary, crossing, alone, strict=True)
    mixed = [each.name for each, one, other in pairs if not same_bits(one[0], other[0])]
    if mixed:
        raise refusals.mixes(expression, mixed)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """What calls write into buffers meanwhile is undone."""
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            if not same_bits(buffer, before):
                buffer.data.copy_(before)


@contextmanager
def _same_chance() -> Iterator[None]:
    """What is random is the same in each such context, and the world outside does not notice."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
