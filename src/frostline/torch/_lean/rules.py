"""What backward really reads of what autograd saves: a rule for each kind of node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import Node
from torch.utils._python_dispatch import _disable_current_modes

from frostline.torch._autograd.saved import packed
from frostline.torch._lean.codecs import Above, Between, Clipped, Codec, Index, NonZero, Sign


class Call(NamedTuple):
    """A call of a module that has just ended.

    Attributes:
        module: what was called.
        tops: the nodes of its results.
        bottoms: the nodes of its arguments.
        results: identities of the storages of its results.
    """

    module: nn.Module
    tops: frozenset[Node]
    bottoms: frozenset[Node]
    results: frozenset[int]


Choose = Callable[[Any, Tensor, Call], Codec | None]
"""Of a node and a tensor that it saves: the codec for it, or None to leave it alone."""

Applies = Callable[[Any, Call], bool]
"""Of a node: whether the rule holds for it."""

SLOT = ("data", "register_hooks", "unpack_hook")
"""What the class that holds a saved tensor must have."""


@final
@dataclass(frozen=True)
class Rule:
    """What of some kinds of nodes can be smaller.

    Attributes:
        nodes: class names of autograd nodes.
        drop: names of saved tensors of which backward reads the form and no value.
        shrink: name of a saved tensor -> the choice of a codec for it.
        reads: names of other saved values that the rule reads.
        applies: whether the rule holds for a node.
    """

    nodes: tuple[str, ...]
    drop: tuple[str, ...] = ()
    shrink: Mapping[str, Choose] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    applies: Applies = field(default=lambda node, call: True)

    def needs(self) -> list[str]:
        """The names of attributes that a node must have."""
        tensors = [*self.drop, *self.shrink]
        return [f"_raw_saved_{name}" for name in tensors] + [f"_saved_{name}" for name in (*tensors, *self.reads)]


def table(rules: Iterable[Rule], nodes: Any, slot: type) -> tuple[dict[type, Rule], list[str]]:
    """Rules by the class of the node, and what this release of PyTorch lacks for others.

    A rule is left out for a kind of node if one of the names that it goes by is not there.

    Args:
        rules: the rules.
        nodes: where PyTorch keeps the classes of its nodes.
        slot: the class of what a node keeps a tensor in.

    Returns:
        class -> rule, and the names that are missing.
    """
    missing = [f"{slot.__name__}.{name}" for name in SLOT if not hasattr(slot, name)]
    if missing:
        return {}, missing
    found: dict[type, Rule] = {}
    for rule in rules:
        for name in rule.nodes:
            kind = getattr(nodes, name, None)
            lacking = [name] if kind is None else [f"{name}.{own}" for own in rule.needs() if not hasattr(kind, own)]
            missing += lacking
            if kind is not None and not lacking:
                found[kind] = rule
    return found, missing


def _weight_is_frozen(node: Any, call: Call) -> bool:
    # The edges are input, weight, bias; where no gradient goes, there is no node.
    return node.next_functions[1][0] is None


def _norm_is_frozen(node: Any, call: Call) -> bool:
    return node.next_functions[1][0] is None and not node._saved_training


def _is_dropout(node: Any, call: Call) -> bool:
    # On a CPU a dropout is a product with noise, and nothing in the node tells it from any other product.
    module = call.module
    return type(module) is nn.Dropout and module.training and 0.0 < module.p < 1.0 and node in call.tops


def _always(codec: Codec) -> Choose:
    return lambda node, tensor, call: codec


def _noise(node: Any, tensor: Tensor, call: Call) -> Codec | None:
    assert isinstance(call.module, nn.Dropout)
    codec = NonZero(1 - call.module.p)
    # Somebody's hook may have multiplied the result by something else; a fake tensor has no values that could tell.
    is_noise = isinstance(tensor, FakeTensor) or torch.equal(codec.unpack(codec.pack(tensor)), tensor)
    is_noise = tensor.device.type == "cpu" and is_noise
    return codec if is_noise else None


def _index(rank: int) -> Choose:
    def choose(node: Any, indices: Tensor, call: Call) -> Codec | None:
        own = packed(node._raw_saved_self.data)
        size = own[0] if isinstance(own, tuple) else own.shape  # dropped or not
        plane = torch.Size(size[-rank:]).numel()
        return Index(torch.int16 if plane <= 2**15 else torch.int32) if plane <= 2**31 else None

    return choose


@cache
def _fitting(codec: Between, dtype: torch.dtype) -> Codec | None:
    with _disable_current_modes():  # it computes numbers, of which fake tensors have none
        if not codec.suits(dtype):
            return None
    clips = not codec.closed and codec.low is not None and codec.low >= 0 and codec.high is not None
    return Clipped(codec.low, codec.high) if clips else codec  # type: ignore[arg-type]


def _hardtanh(node: Any, tensor: Tensor, call: Call) -> Codec | None:
    # Vectorised and scalar kernels of a CPU do not agree on NaN; where there may be one, nothing is done.
    on_cpu = tensor.device.type == "cpu"
    if on_cpu and not isinstance(tensor, FakeTensor) and tensor.sum().isnan():
        return None
    return _fitting(Between(node._saved_min_val, node._saved_max_val, nan_inside=not on_cpu), tensor.dtype)


def _hardsigmoid(node: Any, tensor: Tensor, call: Call) -> Codec | None:
    return _fitting(Between(-3.0, 3.0), tensor.dtype)


def _threshold(node: Any, tensor: Tensor, call: Call) -> Codec | None:
    return _fitting(Between(node._saved_threshold, None, nan_inside=True), tensor.dtype)


def _clamp(node: Any, tensor: Tensor, call: Call) -> Codec | None:
    return _fitting(Between(node._saved_min, node._saved_max, closed=True), tensor.dtype)


def _clamp_min(node: Any, tensor: Tensor, call: Call) -> Codec | None:
    return _fitting(Between(node._saved_min, None, closed=True), tensor.dtype)


def _clamp_max(node: Any, tensor: Tensor, call: Call) -> Codec | None:
    return _fitting(Between(None, node._saved_max, closed=True), tensor.dtype)


POOLS_2D = ("MaxPool2DWithIndicesBackward0", "AdaptiveMaxPool2DBackward0", "FractionalMaxPool2DBackward0")
POOLS_3D = ("MaxPool3DWithIndicesBackward0", "AdaptiveMaxPool3DBackward0", "FractionalMaxPool3DBackward0")

RULES = (
    Rule(("ConvolutionBackward0",), drop=("input",), applies=_weight_is_frozen),
    Rule(
        ("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0"),
        drop=("input",),
        reads=("training",),
        applies=_norm_is_frozen,
    ),
    Rule(("ReluBackward0",), shrink={"result": _always(NonZero())}),
    Rule(("LeakyReluBackward0",), shrink={"self": _always(Above())}),
    Rule(("LeakyReluBackward1",), shrink={"result": _always(Above())}),
    Rule(("PreluKernelBackward0",), shrink={"self": _always(Sign())}, applies=_weight_is_frozen),
    Rule(("HardtanhBackward0",), shrink={"self": _hardtanh}, reads=("min_val", "max_val")),
    Rule(("HardsigmoidBackward0",), shrink={"self": _hardsigmoid}),
    Rule(("ThresholdBackward0", "ThresholdBackward1"), shrink={"self": _threshold}, reads=("threshold",)),
    Rule(("ClampBackward1",), shrink={"self": _clamp}, reads=("min", "max")),
    Rule(("ClampMinBackward0",), shrink={"self": _clamp_min}, reads=("min",)),
    Rule(("ClampMaxBackward0",), shrink={"self": _clamp_max}, reads=("max",)),
    Rule(POOLS_2D, drop=("self",), shrink={"result1": _index(2)}),
    Rule(POOLS_3D, drop=("self",), shrink={"result1": _index(3)}),
    Rule(tuple(f"{kind}Pool{rank}DBackward0" for kind in ("Avg", "AdaptiveAvg") for rank in (2, 3)), drop=("self",)),
    Rule(
        tuple(f"{kind}Pad{rank}DBackward0" for kind in ("Reflection", "Replication") for rank in (1, 2, 3)),
        drop=("self",),
    ),
    Rule(("MulBackward0",), shrink={"other": _noise}, applies=_is_dropout),
)
