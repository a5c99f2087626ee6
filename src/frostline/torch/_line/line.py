"""The frost line of a model: what nothing that trains can reach, and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import nn

from frostline._core.fingerprint import digest, fingerprint
from frostline.features.boundary import Boundary
from frostline.torch._holding.forward import bare
from frostline.torch._line import refusals
from frostline.torch._line.above import Above
from frostline.torch._line.at import CutAt
from frostline.torch._line.inputs import Inputs, written
from frostline.torch._line.proof import Sides, called, prove
from frostline.torch._line.traced import ABOVE, BELOW, Traced
from frostline.torch._runtime.record import PLAIN, RuntimeRecord
from frostline.torch._runtime.runtime import BOUND, Below
from frostline.torch._tensors import bytes_of, dtype_name
from frostline.torch._wrappers import refuse_wrapped, unwrapped


def frostline(
    model: nn.Module,
    *example: Any,
    at: str | None = None,
    runtime: str | None = None,
    bound: float = BOUND,
    **named: Any,
) -> Line:
    """The frost line of a model: the boundary behind which nothing depends on a trainable parameter.

    It is found from a trace, in any model: what no trainable parameter enters is below, and of all values that could
    cross the line those are taken that need the fewest bytes a sample. Views, casts and masks are computed again
    above, and what does not depend on the sample is no part of the boundary. Dropout and batch statistics right at
    the line are above, and act as in training.

    The line is proved when it is drawn: the example is computed both ways and compared bit for bit. Drawing it takes
    two traces and four calls of the model; a batch of another size, or another mode of the model, is traced when it
    first comes.

    Args:
        model: with something frozen and something trainable.
        example: what the model is called with, samples first: tensors, and what else it takes. Tensors may be in
            tuples, lists and dicts.
        at: the path of a module to cut behind, ``"layer3"``, where a trace is not possible or not wanted.
        runtime: how ``line.below`` runs: as it is (None), ``"compiled"``, ``"bfloat16"``, ``"channels_last"``,
            ``"int8"``, several of them joined by ``+``, or ``"auto"``, which times them on the first batch;
            ``line.runtime`` says what it picked. Another runtime computes other features, so a cache is refused
            where ``"auto"`` picks another one than last time: then name the one that it picked.
        bound: how far a runtime may be off: the largest difference over the largest value, for each value at the line.
        named: what the model is called with by name.

    Raises:
        RuntimeChoiceError: there is no such runtime, it cannot run here, or it is further off than the bound.
        UntraceableError: the model cannot be traced; say where to cut.
        LineError: nothing is below the line or above it; what is below is random, has a state or mixes samples; the
            example does not have the samples first; there is no module at that path, something before it trains, or
            it is not all that crosses.
        WrappedError: the model is inside a wrapper that exchanges gradients; put the wrapper around ``line.above``.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> _ = freeze(model, "0")
        >>> line = frostline(model, torch.ones(3, 4))
        >>> line
        <Line at 1: 32 bytes and 64 FLOPs a sample>
        >>> crossing = line.below(torch.ones(5, 4))
        >>> torch.equal(line.above(*crossing), model(torch.ones(5, 4)))
        True
        >>> line.above.get_parameter("2.weight") is model[2].weight
        True
    """
    refuse_wrapped(model)
    root = unwrapped(model)
    arguments = [written(example), *(f"{name}={written([value])}" for name, value in named.items())]
    expression = f"frostline({', '.join([type(root).__name__, *filter(None, arguments)])})"
    refusals.refuse_counts(root, expression)
    inputs = Inputs(example, named, expression)
    # What is lean is so in a call of the model; what is folded there is not in a trace.
    with bare(), torch.enable_grad():
        want = called(root, inputs, expression)
        sides: Sides = Traced(root, inputs, expression) if at is None else CutAt(root, inputs, at, expression)
        flops = prove(sides, inputs, want, expression)
    return Line(sides, inputs, flops, Below(sides, inputs.leaves, runtime, bound))


@final
class Line:
    """A model in two parts; made by :func:`frostline`.

    ``line.above(*line.below(x))`` is bitwise ``model(x)`` for any number of samples, in the mode that the model is in.
    Thawing something below makes both parts raise; freezing more leaves the line right, if not as high as it could be.
    A module that is replaced, a hook that is added or an ``eps`` that is changed afterwards is not seen: draw it anew.

    Attributes:
        boundary: what crosses the line, of one sample, in the order in which `below` returns it.
        above: boundary -> what the model returns; a module that holds the model's own parameters.
        flops: floating-point operations that are below, a sample.
    """

    def __init__(self, sides: Sides, inputs: Inputs, flops: int, below: Below) -> None:
        self._sides, self._inputs, self._below = sides, inputs, below
        self.boundary: tuple[Boundary, ...] = sides.boundary
        self.above = Above(sides.model, sides.tops[ABOVE], sides.follow, self._from_boundary)
        self.flops = flops

    def __repr__(self) -> str:
        names = ", ".join(each.name for each in self.boundary)
        return f"<Line at {names}: {sum(each.bytes for each in self.boundary)} bytes and {self.flops} FLOPs a sample>"

    def __str__(self) -> str:
        rows = "".join(f"\n  {refusals.written(each)}: {each.bytes} bytes" for each in self.boundary)
        return f"{self!r}{rows}"

    @property
    def runtime(self) -> RuntimeRecord:
        """What was tried to run `below`, and what was picked; it prints as a table."""
        return self._below.record

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The parameters and buffers below, by their paths in the model."""
        return self._sides.tensors(BELOW)

    def below(self, *inputs: Any, **named: Any) -> tuple[torch.Tensor, ...]:
        """What crosses the line for some samples, samples first, without a gradient.

        Args:
            inputs: as in the example, with any number of samples.
            named: as in the example.

        Raises:
            LineError: they are not as in the example, or something below trains by now.
        """
        leaves = self._inputs.flat(inputs, named)
        self._refuse_thawed()
        plain = [leaf.detach() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        # As in training: oneDNN's LSTM rounds otherwise where gradients are not asked for at all.
        with torch.enable_grad():
            return tuple(value.detach() for value in self._below(plain))

    def fingerprint(self) -> str:
        """A digest of all that is below: what is computed, from which bytes, in which runtime.

        The device and the batch size are left aside.
        """
        held = fingerprint(_entries(self.tensors))
        crossing = "\n".join(map(refusals.written, self.boundary))
        runtime = [] if self._below.word == PLAIN else [self._below.word.encode()]
        return digest([held.total.encode(), self._sides.identity.encode(), crossing.encode(), *runtime])

    def _from_boundary(self, boundary: Sequence[torch.Tensor]) -> Any:
        wanted = [(each.shape, each.dtype) for each in self.boundary]
        found = [(tuple(value.shape[1:]), dtype_name(value.dtype)) for value in boundary]
        if wanted != found or len({len(value) for value in boundary}) != 1:
            drawn = ", ".join(map(refusals.written, self.boundary))
            fix = "Hand it what line.below gives, samples first: line.above(*line.below(*inputs))."
            raise refusals.misfit("line.above", written(boundary), f"{drawn}, for each sample", fix)
        self._refuse_thawed()
        return self._sides.above(boundary)

    def _refuse_thawed(self) -> None:
        if trained := [path for path, tensor in self.tensors.items() if tensor.requires_grad]:
            raise refusals.thawed(trained)


def _entries(tensors: Mapping[str, torch.Tensor]) -> Any:
    for path, tensor in tensors.items():
        with bytes_of(tensor) as data:
            yield path, dtype_name(tensor.dtype), tuple(tensor.shape), data
