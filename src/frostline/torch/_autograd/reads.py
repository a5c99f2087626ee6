"""What the gradients that are wanted of a node read of the tensors that it has saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from frostline.torch._autograd.saved import Kept
from frostline.torch._tensors import storage_identity, storages


@final
@dataclass(frozen=True, slots=True)
class Need:
    """What must be kept of one storage.

    Attributes:
        storage: its identity.
        nbytes: how much of it.
        is_whole: whether it is the tensor itself, not a mask or a position that follows from it.
    """

    storage: int
    nbytes: int
    is_whole: bool


Reaches = Sequence[int | None]
Rule = Callable[[Any, Reaches], dict[str, float]]
"""Names of saved tensors, and how many bits of each element are needed at most; those not named are needed whole."""


def read_by(function: Any, reaches: Reaches, saved: Sequence[torch.Tensor]) -> Iterator[Need]:
    """What a node needs of its saved tensors, at least.

    Args:
        function: the node.
        reaches: of each of its edges, whether something wanted lies behind it: -1 if not, None without an edge.
        saved: the tensors that it has saved.
    """
    bits = _bits(function, reaches)
    for tensor in saved:
        count = 1 if tensor.dtype is torch.bool else math.inf
        for storage in storages(tensor):
            yield _need(storage, tensor, bits.get(storage_identity(storage), count))


def _bits(function: Any, reaches: Reaches) -> dict[int, float]:
    """How many bits of each element are needed at most, by identity of the storage."""
    rule = _RULES.get(function.name())
    try:
        named = {} if rule is None else rule(function, reaches)
        # As it lies in the node: to ask for it by its name would make a checkpoint compute it.
        slots = {getattr(function, f"_raw_saved_{name}").data: count for name, count in named.items()}
    except AttributeError:  # another release of PyTorch saves it under another name, or not at all
        return {}
    kept = {tensor: count for slot, count in slots.items() if isinstance(slot, Kept) for tensor in slot.tensors}
    return {storage_identity(storage): count for tensor, count in kept.items() for storage in storages(tensor)}


def _need(storage: torch.UntypedStorage, tensor: torch.Tensor, bits: float) -> Need:
    if bits >= 8 * tensor.element_size():
        return Need(storage_identity(storage), storage.nbytes(), is_whole=True)
    return Need(storage_identity(storage), math.ceil(tensor.numel() * bits / 8), is_whole=False)


def _wants(reaches: Reaches, edge: int) -> bool:
    reach = reaches[edge] if edge < len(reaches) else None
    return reach is not None and reach >= 0


def _convolution(_: Any, reaches: Reaches) -> dict[str, float]:
    """The input is read for the weight's gradient alone, and the weight for the input's."""
    unread = {"input": _wants(reaches, 1), "weight": _wants(reaches, 0)}
    return {name: 0 for name, is_read in unread.items() if not is_read}


def _batch_norm(function: Any, reaches: Reaches) -> dict[str, float]:
    """With fixed statistics the input is read for the weight's gradient alone."""
    return {} if function._saved_training or _wants(reaches, 1) else {"input": 0}


def _mask(name: str) -> Rule:
    """One bit says on which side of a bend an element was."""
    return lambda _function, _reaches: {name: 1}


def _prelu(_: Any, reaches: Reaches) -> dict[str, float]:
    return {} if _wants(reaches, 1) else {"self": 1}


def _shape_only(_function: Any, _reaches: Reaches) -> dict[str, float]:
    return {"self": 0}


def _window(function: Any, _: Reaches) -> dict[str, float]:
    """A position in the window, in place of one in the picture; of the input only the shape is read."""
    places = math.prod(function._saved_kernel_size)
    return {"self": 0, "result1": math.log2(places)}


def _whole_window(function: Any, _: Reaches) -> dict[str, float]:
    made, given = function._saved_result1.shape, function._saved_self.shape
    places = math.prod(math.ceil(n / m) for n, m in zip(given, made, strict=True))
    return {"self": 0, "result1": math.log2(places)}


_RULES: dict[str, Rule] = {
    "ConvolutionBackward0": _convolution,
    "NativeBatchNormBackward0": _batch_norm,
    "CudnnBatchNormBackward0": _batch_norm,
    "MiopenBatchNormBackward0": _batch_norm,
    "ReluBackward0": _mask("result"),
    "ThresholdBackward0": _mask("self"),
    "LeakyReluBackward0": _mask("self"),
    "HardtanhBackward0": _mask("self"),
    "HardsigmoidBackward0": _mask("self"),
    "ClampBackward1": _mask("self"),
    "ClampMinBackward0": _mask("self"),
    "ClampMaxBackward0": _mask("self"),
    "AbsBackward0": _mask("self"),
    "PreluKernelBackward0": _prelu,
    "AvgPool2DBackward0": _shape_only,
    "AvgPool3DBackward0": _shape_only,
    "AdaptiveAvgPool2DBackward0": _shape_only,
    "AdaptiveAvgPool3DBackward0": _shape_only,
    "MaxPool2DWithIndicesBackward0": _window,
    "MaxPool3DWithIndicesBackward0": _window,
    "AdaptiveMaxPool2DBackward0": _whole_window,
    "AdaptiveMaxPool3DBackward0": _whole_window,
}
