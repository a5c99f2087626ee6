"""The frost line of a model: the part that does not depend on anything that trains, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import nn

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline._core.fingerprint import digest, fingerprint
from frostline.torch._holding.patch import bare
from frostline.torch._line.above import AboveModule
from frostline.torch._line.at import SidesAt
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import called, prove
from frostline.torch._line.sides import Sides
from frostline.torch._line.traced import TracedSides
from frostline.torch._runtime.record import PLAIN, RuntimeRecord
from frostline.torch._runtime.runtime import BOUND, BelowRunner
from frostline.torch._tensors import bytes_of, described, dtype_name
from frostline.torch._wrappers import refuse_wrapped, unwrapped


def frostline(
    model: nn.Module,
    *example: Any,
    at: str | None = None,
    runtime: str | None = None,
    bound: float = BOUND,
    **named: Any,
) -> FrostLine:
    """The frost line of a model: the boundary behind which nothing depends on a trainable parameter.

    A trace finds it, in any model: values that no trainable parameter enters are below, and the line is drawn where
    the values that cross it take the fewest bytes a sample. Views, casts and masks are computed again above, and
    values that do not depend on the sample are not part of the boundary. Dropout and batch statistics right at the
    line are above, and act as in training.

    The line is proved when it is drawn: the example is computed both ways and compared bitwise. Drawing takes two
    traces and four calls of the model; the first batch of another size, or in another mode of the model, is traced
    too.

    Args:
        model: with something frozen and something trainable.
        example: the inputs of the model, samples first: tensors, also in tuples, lists and dicts, and other arguments.
        at: the path of a module to cut behind, ``"layer3"``, where a trace is not possible or not wanted.
        runtime: how ``line.below`` runs: as it is (None), ``"compiled"``, ``"bfloat16"``, ``"channels_last"``,
            ``"int8"``, several of them joined by ``+``, or ``"auto"``, which times them on the first batch;
            ``line.runtime`` says what it picked. Another runtime computes other features, so a cache is refused
            where ``"auto"`` picks another one than last time: then name the one that it picked.
        bound: how far a runtime may be off: the largest difference over the largest value, for each value at the line.
        named: the inputs that the model takes by name.

    Raises:
        RuntimeChoiceError: there is no such runtime, it cannot run here, or it is further off than the bound.
        UntraceableError: the model cannot be traced; say where to cut.
        LineError: nothing is below the line or above it; something below is random, has a state or mixes samples; the
            example does not have the samples first; there is no module at that path, something before it trains, or
            more than its output crosses the line.
        WrappedError: the model is inside a wrapper that exchanges gradients; put the wrapper around ``line.above``.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> _ = freeze(model, "0")
        >>> line = frostline(model, torch.ones(3, 4))
        >>> line
        <FrostLine at 1: 32 bytes and 64 FLOPs a sample>
        >>> crossing = line.below(torch.ones(5, 4))
        >>> torch.equal(line.above(*crossing), model(torch.ones(5, 4)))
        True
        >>> line.above.get_parameter("2.weight") is model[2].weight
        True
    """
    refuse_wrapped(model)
    root = unwrapped(model)
    arguments = [*map(described, example), *(f"{name}={described(value)}" for name, value in named.items())]
    expression = f"frostline({', '.join([type(root).__name__, *arguments])})"
    flags = [parameter.requires_grad for parameter in root.parameters()]
    if not any(flags):
        problem = f"has nothing above its line: 0 of {counted(len(flags), 'parameter')} train."
        raise LineError(expression, problem, (), 'Train what is to be above: ft.thaw(model, "head").')
    if all(flags):
        problem = f"has nothing below its line: 0 of {counted(len(flags), 'parameter')} are frozen."
        raise LineError(expression, problem, (), 'Freeze what is to be below: ft.freeze(model, "encoder").')
    inputs = Inputs(example, named, expression)
    # Lean modules save less in a call of the model; their folded weights are not in a trace.
    with bare(), torch.enable_grad():
        want = called(root, inputs, expression)
        sides: Sides = TracedSides(root, inputs, expression) if at is None else SidesAt(root, inputs, at, expression)
        flops = prove(sides, want)
    return FrostLine(sides, flops, BelowRunner(sides, inputs.leaves, runtime, bound))


@final
class FrostLine:
    """A model in two parts; made by :func:`frostline`.

    ``line.above(*line.below(x))`` is bitwise ``model(x)`` for any number of samples, in the mode that the model is in.
    Thawing something below makes both parts raise; freezing more leaves the line right, if not as high as it could be.
    A module that is replaced, a hook that is added or an ``eps`` that is changed afterwards is not seen: draw it again.

    Attributes:
        boundary: the values that cross the line, of one sample, in the order in which `below` returns it.
        above: boundary -> the model's output; a module that holds the model's own parameters.
        flops: the floating-point operations of one sample below.
    """

    def __init__(self, sides: Sides, flops: int, below: BelowRunner) -> None:
        self._sides, self._below = sides, below
        self.boundary = sides.boundary
        self.above = AboveModule(sides)
        self.flops = flops

    def __repr__(self) -> str:
        names = ", ".join(each.name for each in self.boundary)
        size = sum(each.bytes for each in self.boundary)
        return f"<FrostLine at {names}: {size} bytes and {self.flops} FLOPs a sample>"

    def __str__(self) -> str:
        return "\n".join([repr(self), *(f"  {each}: {each.bytes} bytes" for each in self.boundary)])

    @property
    def runtime(self) -> RuntimeRecord:
        """The runtimes that were tried for `below`, and the one that was picked; it prints as a table."""
        return self._below.record

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The parameters and buffers below, by their paths in the model."""
        return self._sides.tensors_below

    def below(self, *inputs: Any, **named: Any) -> tuple[torch.Tensor, ...]:
        """Computes the boundary of some samples, samples first, without a gradient.

        Args:
            inputs: as in the example, with any number of samples.
            named: as in the example.

        Raises:
            LineError: they are not as in the example, or something below trains by now.
        """
        leaves = self._sides.inputs.flat(inputs, named)
        self._sides.refuse_thawed()
        plain = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        # As in training: oneDNN's LSTM rounds otherwise where no gradient is asked for at all.
        with torch.enable_grad():
            return tuple(value.detach() for value in self._below(plain))

    def fingerprint(self) -> str:
        """Returns a digest of all that is below: the operators, the bytes they read, the boundary and the runtime.

        The device and the batch size do not count.
        """

        def entries() -> Iterator[tuple[str, str, tuple[int, ...], memoryview]]:
            for path, tensor in self.tensors.items():
                with bytes_of(tensor) as data:
                    yield path, dtype_name(tensor.dtype), tuple(tensor.shape), data

        crossing = "\n".join(map(str, self.boundary))
        runtime = [] if self._below.word == PLAIN else [self._below.word]
        words = [fingerprint(entries()).total, self._sides.identity, crossing, *runtime]
        return digest([word.encode() for word in words])
