"""The table of saved tensor rules: for each kind of node, the smallest form of a saved tensor that backward needs.

`lean` reads the form to keep from it, and `cost` the least bytes, so the kept bytes are never below the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import Node
from torch.utils._python_dispatch import _disable_current_modes

from frostline.torch._autograd.codecs import (
    ClippedMask,
    Codec,
    NonZeroMask,
    PositiveMask,
    RangeMask,
    ShapeOnly,
    SignCode,
    SmallIndex,
)
from frostline.torch._autograd.saved import packed
from frostline.torch._holding.classes import original_class


class ModuleCall(NamedTuple):
    """A call of a module that has just ended.

    Attributes:
        module: the module.
        tops: the nodes of its results.
        bottoms: the nodes of its arguments.
        results: identities of the storages of its results.
    """

    module: nn.Module
    tops: frozenset[Node]
    bottoms: frozenset[Node]
    results: frozenset[int]


Choose = Callable[[Any, Tensor], Codec | None]
"""From a node and a tensor that it saved to the codec for it; None leaves the tensor as it is."""


@final
@dataclass(frozen=True)
class Form:
    """The smallest form of a saved tensor that backward needs.

    Attributes:
        bits: the least bits for each element.
        choose: the smallest form that `lean` can keep.
    """

    bits: float
    choose: Choose | None = None


WHOLE = Form(math.inf)
SHAPE = Form(0, lambda _node, _tensor: ShapeOnly())
UNREAD = Form(0)
"""Not read, but kept in any case, as a parameter is."""

Wants = Callable[[int], bool]
"""Whether the gradient of an edge is wanted, by the number of the edge."""

Read = Callable[[Any, Wants, ModuleCall | None], Form]
"""From a node, the gradients that are wanted, and the call that made the node if it is known, to a form."""


@final
@dataclass(frozen=True)
class SavedTensorRule:
    """The rule for the tensors that some kinds of nodes save for backward.

    Attributes:
        nodes: class names of autograd nodes.
        tensors: how backward reads each saved tensor, by its name; it reads all other tensors whole.
        reads: the names of other saved values that the rule reads.
    """

    nodes: tuple[str, ...]
    tensors: Mapping[str, Read]
    reads: tuple[str, ...] = field(default=())

    def attributes(self) -> list[str]:
        """The attributes that a node must have."""
        return [f"_raw_saved_{n}" for n in self.tensors] + [f"_saved_{n}" for n in (*self.tensors, *self.reads)]


def rules_by_kind(
    rules: Iterable[SavedTensorRule], nodes: Any, slot: type
) -> tuple[dict[type, SavedTensorRule], list[str]]:
    """The rules by the class of the node, and the names that this release of PyTorch lacks.

    A rule is left out for a kind of node if one of its names is missing.

    Args:
        rules: the rules.
        nodes: the module in which PyTorch keeps the classes of its nodes.
        slot: the class in which a node keeps a saved tensor.
    """
    missing = [
        f"{slot.__name__}.{name}" for name in ("data", "register_hooks", "unpack_hook") if not hasattr(slot, name)
    ]
    if missing:
        return {}, missing
    found: dict[type, SavedTensorRule] = {}
    for rule in rules:
        for name in rule.nodes:
            kind = getattr(nodes, name, None)
            lacking = [name] if kind is None else [f"{name}.{a}" for a in rule.attributes() if not hasattr(kind, a)]
            missing += lacking
            if kind is not None and not lacking:
                found[kind] = rule
    return found, missing


def _read_for(*edges: int, unread: Form = UNREAD) -> Read:
    """The tensor is read only for the gradients of these edges."""
    return lambda _node, wants, _call: WHOLE if any(map(wants, edges)) else unread


def _always(form: Form) -> Read:
    return lambda _node, _wants, _call: form


def _mask(choose: Choose) -> Read:
    """One bit says on which side of a bend an element is."""
    return _always(Form(1, choose))


def _norm_input(node: Any, wants: Wants, _: ModuleCall | None) -> Form:
    """With fixed statistics the input of a batch norm is read for the gradient of the weight alone."""
    if node._saved_training:
        return WHOLE if wants(0) or wants(1) else UNREAD
    return WHOLE if wants(1) else SHAPE


def _prelu_input(_node: Any, wants: Wants, _call: ModuleCall | None) -> Form:
    return WHOLE if wants(1) else Form(1, lambda _node, _tensor: SignCode())


def _noise(node: Any, _: Wants, call: ModuleCall | None) -> Form:
    """The noise of a dropout. On a CPU a dropout is a product, and only the module tells it from other products."""
    module: Any = None if call is None or node not in call.tops else call.module
    is_dropout = module is not None and original_class(module) is nn.Dropout
    if not is_dropout or not module.training or not 0.0 < module.p < 1.0:
        return WHOLE
    codec = NonZeroMask(1 - module.p)

    def choose(_: Any, tensor: Tensor) -> Codec | None:
        # A hook of the user may have multiplied the result by something else; a fake tensor has no values to compare.
        is_noise = isinstance(tensor, FakeTensor) or torch.equal(codec.unpack(codec.pack(tensor)), tensor)
        return codec if tensor.device.type == "cpu" and is_noise else None

    return Form(1, choose)


def _window_index(rank: int) -> Read:
    """An index is a position in the window, in place of one in the whole input."""

    def read(node: Any, _: Wants, __: ModuleCall | None) -> Form:
        kernel = getattr(node, "_saved_kernel_size", None)
        if kernel is None:  # an adaptive pool
            made = node._saved_result1.shape[-rank:]
            kernel = [math.ceil(n / m) for n, m in zip(_shape(node)[-rank:], made, strict=True)]
        return Form(math.log2(math.prod(kernel)), choose)

    def choose(node: Any, _: Tensor) -> Codec | None:
        plane = _shape(node)[-rank:].numel()
        return SmallIndex(torch.int16 if plane <= 2**15 else torch.int32) if plane <= 2**31 else None

    return read


def _shape(node: Any) -> torch.Size:
    """The shape of the input of a pool, which may have been reduced to its shape."""
    own = packed(node._raw_saved_self.data)
    shape: torch.Size = own[0] if isinstance(own, tuple) else node._saved_self.shape
    return shape


@cache
def _fitting(codec: RangeMask, dtype: torch.dtype) -> Codec | None:
    with _disable_current_modes():  # fake tensors have no values to compute with
        if not codec.suits(dtype):
            return None
    if codec.closed or codec.low is None or codec.low < 0 or codec.high is None:
        return codec
    return ClippedMask(codec.low, codec.high)


def _hardtanh(node: Any, tensor: Tensor) -> Codec | None:
    # Vectorised and scalar CPU kernels disagree on NaN, so a tensor with a NaN is left alone.
    on_cpu = tensor.device.type == "cpu"
    if on_cpu and not isinstance(tensor, FakeTensor) and tensor.sum().isnan():
        return None
    return _fitting(RangeMask(node._saved_min_val, node._saved_max_val, nan_inside=not on_cpu), tensor.dtype)


def _rounded(node: Any, _: Wants, __: ModuleCall | None) -> Form:
    """The gradient of a rounded quotient is zero."""
    return WHOLE if node._saved_rounding_mode is None else UNREAD


_POSITIONS = ("Gather", "Take", "MaskedSelect", "Cummax", "Cummin", "NllLoss", "NllLoss2D", "FftR2C")
_POOLS = ("MaxPool{}DWithIndicesBackward0", "AdaptiveMaxPool{}DBackward0", "FractionalMaxPool{}DBackward0")
_AVERAGES = tuple(f"{kind}Pool{rank}DBackward0" for kind in ("Avg", "AdaptiveAvg") for rank in (2, 3))
_PADS = tuple(f"{kind}Pad{rank}DBackward0" for kind in ("Reflection", "Replication") for rank in (1, 2, 3))

LEAN_RULES = (
    SavedTensorRule(("ConvolutionBackward0",), {"input": _read_for(1, unread=SHAPE), "weight": _read_for(0)}),
    SavedTensorRule(
        ("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0"),
        {"input": _norm_input},
        reads=("training",),
    ),
    SavedTensorRule(("ReluBackward0",), {"result": _mask(lambda _node, _tensor: NonZeroMask())}),
    SavedTensorRule(("LeakyReluBackward0",), {"self": _mask(lambda _node, _tensor: PositiveMask())}),
    SavedTensorRule(("LeakyReluBackward1",), {"result": _mask(lambda _node, _tensor: PositiveMask())}),
    SavedTensorRule(("PreluKernelBackward0",), {"self": _prelu_input}),
    SavedTensorRule(("HardtanhBackward0",), {"self": _mask(_hardtanh)}, reads=("min_val", "max_val")),
    SavedTensorRule(
        ("HardsigmoidBackward0",), {"self": _mask(lambda _node, tensor: _fitting(RangeMask(-3.0, 3.0), tensor.dtype))}
    ),
    SavedTensorRule(
        ("ThresholdBackward0", "ThresholdBackward1"),
        {"self": _mask(lambda node, x: _fitting(RangeMask(node._saved_threshold, None, nan_inside=True), x.dtype))},
        reads=("threshold",),
    ),
    SavedTensorRule(
        ("ClampBackward1",),
        {"self": _mask(lambda node, x: _fitting(RangeMask(node._saved_min, node._saved_max, closed=True), x.dtype))},
        reads=("min", "max"),
    ),
    SavedTensorRule(
        ("ClampMinBackward0",),
        {"self": _mask(lambda node, x: _fitting(RangeMask(node._saved_min, None, closed=True), x.dtype))},
        reads=("min",),
    ),
    SavedTensorRule(
        ("ClampMaxBackward0",),
        {"self": _mask(lambda node, x: _fitting(RangeMask(None, node._saved_max, closed=True), x.dtype))},
        reads=("max",),
    ),
    *(
        SavedTensorRule(
            tuple(name.format(rank) for name in _POOLS), {"self": _always(SHAPE), "result1": _window_index(rank)}
        )
        for rank in (2, 3)
    ),
    SavedTensorRule((*_AVERAGES, *_PADS), {"self": _always(SHAPE)}),
    SavedTensorRule(("MulBackward0",), {"other": _noise}),
)
"""The rules by which `lean` keeps a smaller form."""

LIMIT_RULES = (
    SavedTensorRule(("AbsBackward0",), {"self": _always(Form(math.log2(3)))}),
    SavedTensorRule(
        ("NativeLayerNormBackward0", "NativeGroupNormBackward0"),
        {
            "input": _read_for(0, 1),
            "result1": _read_for(0, 1),
            "result2": _read_for(0, 1),
            "weight": _read_for(0),
        },
    ),
    SavedTensorRule(("NativeBatchNormLegitBackward0", "BatchNormWithUpdateBackward0"), {"input": _read_for(0, 1)}),
    SavedTensorRule(
        tuple(f"{name}Backward0" for name in _POSITIONS),
        {"self": _always(UNREAD)},
    ),
    SavedTensorRule(("IndexAddBackward0", "IndexCopyBackward0", "PutBackward0"), {"source": _always(UNREAD)}),
    SavedTensorRule(("ComplexBackward0",), {"real": _always(UNREAD), "imag": _always(UNREAD)}),
    SavedTensorRule(("DivBackward2",), {"self": _rounded, "other": _rounded}, reads=("rounding_mode",)),
    SavedTensorRule(("BinaryCrossEntropyBackward0", "BinaryCrossEntropyWithLogitsBackward0"), {"target": _read_for(0)}),
    SavedTensorRule(("AddcdivBackward0",), {"tensor2": _read_for(1, 2)}),
    SavedTensorRule(("LerpBackward1",), {"weight": _read_for(0, 1)}),
    SavedTensorRule(("EmbeddingBagBackward0",), {"per_sample_weights": _read_for(0)}),
    SavedTensorRule(("SoftmaxBackwardDataBackward0", "NativeDropoutBackwardBackward0"), {"grad_output": _read_for(1)}),
)
"""The rules for tensors that `lean` leaves alone, because they are small or not part of a frozen network."""

RULES = (*LEAN_RULES, *LIMIT_RULES)
_NODES, _SLOT = torch._C._functions, torch._C._autograd.SavedTensor
LEAN_KNOWN, MISSING = rules_by_kind(LEAN_RULES, _NODES, _SLOT)
"""The rules of `lean` in this release of PyTorch, and the names that it lacks for others."""

KNOWN = LEAN_KNOWN | rules_by_kind(LIMIT_RULES, _NODES, _SLOT)[0]
"""All rules of this release."""
