"""The frost line of a model: the part that depends on no trainable parameter, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import nn

from frostline._core.errors import LineError, WrappedError
from frostline._core.errors.base import counted
from frostline._core.fingerprint import Fingerprint, digest, digest_of
from frostline.torch._holding.patch import bare
from frostline.torch._line.above import AboveModule
from frostline.torch._line.at import SidesAt
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.proof import called, prove
from frostline.torch._line.sides import Sides
from frostline.torch._line.traced import TracedSides
from frostline.torch._runtime.record import PLAIN, RuntimeRecord
from frostline.torch._runtime.runtime import BOUND, BelowRunner
from frostline.torch._tensors import check_readable, described, dtype_name, pieces_of
from frostline.torch._wrappers import is_static, unwrapped


def frostline(
    model: nn.Module,
    *example: Any,
    at: str | None = None,
    runtime: str | None = None,
    bound: float = BOUND,
    **named: Any,
) -> FrostLine:
    """Finds the frost line of a model: the boundary behind which nothing depends on a trainable parameter.

    A trace finds it in any model: values that depend on no trainable parameter are below, and the line is drawn where
    the values that cross it have the fewest bytes for each sample. The part above computes views, casts and masks
    again, and every value of the boundary depends on the sample. Dropout and batch statistics directly at the line are
    above, and act as in training.

    The line is proved when it is drawn: the example is computed both ways and compared bitwise. Drawing takes two
    traces and four calls of the model. The first batch of another size or in another mode of the model is traced, too.

    Args:
        model: a model with frozen and trainable parameters.
        example: the inputs of the model, samples first: tensors, also in tuples, lists and dicts, and other arguments.
        at: the path of a module behind which to cut, such as ``"layer3"``, to avoid a trace.
        runtime: the runtime of ``line.below``: PyTorch without changes (None), ``"compiled"``, ``"bfloat16"``,
            ``"channels_last"``, ``"int8"``, several of them joined by ``+``, or ``"auto"``, which times them on the
            first batch; ``line.runtime`` shows its choice. Another runtime computes other features, so a cache is
            refused if ``"auto"`` chooses another runtime than before; to avoid this, name the runtime.
        bound: the largest allowed error of a runtime: the largest difference over the largest value, for each value.
        named: the keyword inputs of the model.

    Raises:
        RuntimeChoiceError: the runtime does not exist, cannot run here, or exceeds the bound.
        UntraceableError: the model cannot be traced; pass `at`.
        LineError: one side of the line is empty; an operation below is random, has a state or mixes samples; the
            example does not have the samples first; or the module `at` does not exist, comes after a trainable
            parameter, or is not the only value that crosses the line.
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
    for path, wrapper in ((path, module) for path, module in model.named_modules() if is_static(module)):
        name = type(wrapper).__name__
        raise WrappedError(name, path, (), (), f"Wrap the part above instead: above = {name}(line.above).")
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
    # Lean modules save less in a call of the model, but a trace has no folded weights.
    with bare(), torch.enable_grad():
        want = called(root, inputs, expression)
        sides: Sides = TracedSides(root, inputs, expression) if at is None else SidesAt(root, inputs, at, expression)
        flops = prove(sides, want)
    return FrostLine(sides, flops, BelowRunner(sides, inputs.leaves, runtime, bound))


@final
class FrostLine:
    """A model in two parts; made by :func:`frostline`.

    ``line.above(*line.below(x))`` is bitwise ``model(x)`` for any number of samples, in the mode that the model is in.
    After a thaw below, both parts raise an error; after a freeze the line stays correct, but may not be as high as
    possible. The line does not notice a replaced module, a new hook or another ``eps``: draw it again.

    Attributes:
        boundary: the values that cross the line, for one sample, in the order in which `below` returns them.
        above: boundary -> the model's output; a module with the model's own parameters.
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
        """The runtimes that were tried for `below`, and the chosen one; it prints as a table."""
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
            LineError: they do not fit the example, or a parameter below has been thawed.
        """
        leaves = self._sides.inputs.flat(inputs, named)
        self._sides.refuse_thawed()
        plain = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        # As in training, because oneDNN's LSTM rounds differently if no gradient is wanted.
        with torch.enable_grad():
            return tuple(value.detach() for value in self._below(plain))

    def fingerprint(self) -> str:
        """Returns a digest of the part below: its operators, the bytes that they read, the boundary and the runtime.

        The device and the batch size do not count.
        """
        check_readable("line.fingerprint()", self.tensors)
        weights = Fingerprint(
            tuple(
                (path, digest_of(dtype_name(tensor.dtype), tensor.shape, pieces_of(tensor)))
                for path, tensor in self.tensors.items()
            )
        )
        crossing = "\n".join(map(str, self.boundary))
        runtime = [] if self._below.word == PLAIN else [self._below.word]
        words = [weights.total, self._sides.identity, crossing, *runtime]
        return digest([word.encode() for word in words])
