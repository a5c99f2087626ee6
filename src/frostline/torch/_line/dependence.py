"""Dependence: the values of a trace that depend on the sample, on trainable parameters, or on state and randomness."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from frostline.torch._line.sides import places_of
from frostline.torch._line.trace import ModelTrace, storage_of, written_by

# Operators that rearrange, select or make values, or pass over them once or twice, beside those that PyTorch itself
# calls pointwise. Products, convolutions, attention, recurrence and pooling are not among them.
CHEAP = frozenset(
    word
    for line in (
        "__and__ __or__ __xor__ _to_copy alias alpha_dropout amax amin arange batch_norm broadcast_to cat chunk clone",
        "concat constant_pad_nd contiguous cumsum detach dropout empty empty_like expand expand_as feature_dropout",
        "flatten full full_like gather group_norm hardsigmoid hardswish hardtanh index index_select instance_norm",
        "layer_norm log_softmax masked_fill mean movedim moveaxis narrow new_empty new_full new_ones new_zeros ones",
        "ones_like pad permute relu6 repeat repeat_interleave reshape reshape_as rms_norm roll select slice softmax",
        "split split_with_sizes squeeze stack sum swapaxes swapdims t tensor_split tile to transpose tril triu",
        "type_as unbind unflatten unsqueeze upsample_nearest2d var view view_as zeros zeros_like",
    )
    for word in line.split()
)


@dataclass(frozen=True)
class TraceDependence:
    """The nodes of a trace, grouped by their dependence.

    Attributes:
        sampled: the nodes that depend on the sample.
        trained: the nodes that depend on a trainable parameter, each with the first such parameter.
        changing: the nodes that depend on randomness or a state and on no trainable parameter, each with the node where
            that begins.
    """

    sampled: frozenset[fx.Node]
    trained: dict[fx.Node, str]
    changing: dict[fx.Node, fx.Node]

    def is_below(self, node: fx.Node) -> bool:
        """Whether a value depends on the sample and is equal in each call."""
        return node in self.sampled and not self.is_above(node)

    def is_above(self, node: fx.Node) -> bool:
        """Whether a value must be computed in each call."""
        return node in self.trained or node in self.changing


def dependence(trace: ModelTrace, trained_names: Collection[str]) -> TraceDependence:
    """Returns the dependence of the nodes of a trace, given the names of the tensors that training moves."""
    written = {target.target for node in trace.graph.nodes for target in written_by(node)} | _shared_statistics(trace)
    sampled: set[fx.Node] = set()
    trained: dict[fx.Node, str] = {}
    changing: dict[fx.Node, fx.Node] = {}
    for node in trace.graph.nodes:
        reads = node.all_input_nodes
        if node.op == "placeholder" or not sampled.isdisjoint(reads):
            sampled.add(node)
        if node.op == "get_attr" and node.target in trained_names:
            trained[node] = node.target
        elif met := [trained[read] for read in reads if read in trained]:
            trained[node] = met[0]
        elif (node.op == "get_attr" and node.target in written) or (
            _changes(node, trace) and not _standardises_weight(node, sampled)
        ):
            changing[node] = node
        elif sources := [changing[read] for read in reads if read in changing]:
            changing[node] = sources[0]
    return TraceDependence(frozenset(sampled), trained, changing)


def is_cheap(node: fx.Node) -> bool:
    """Whether a value is cheap to compute again: it is a view, a cast, or costs a pass over its bytes."""
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if torch.Tag.pointwise in node.target.tags or node.target.overloadpacket.__name__ in CHEAP:
        return True
    return any(storage_of(node) == storage_of(read) != () for read in node.all_input_nodes)


def _shared_statistics(trace: ModelTrace) -> set[str]:
    """Returns the names of statistics that a norm writes under another name, as in a layer with a frozen use."""
    written = {
        str(read.target)
        for node in trace.graph.nodes
        if _takes_batch_statistics(node)
        for read in (_argument(node, "running_mean"), _argument(node, "running_var"))
        if isinstance(read, fx.Node)
    }
    places = {place for name in written for place in places_of(trace.tensors[name])}
    tensors = {name: held for name, held in trace.tensors.items() if isinstance(held, torch.Tensor)}
    return {name for name, held in tensors.items() if name not in written and not places.isdisjoint(places_of(held))}


def _changes(node: fx.Node, trace: ModelTrace) -> bool:
    """Whether an operator returns other values in another call, or has a side effect."""
    if node.op != "call_function":
        return False
    for read in node.all_input_nodes:
        inner = trace.tensors.get(str(read.target)) if read.op == "get_attr" else None
        if isinstance(inner, fx.GraphModule):
            part = ModelTrace(inner.graph, {}, trace.result)
            if any(_changes(each, part) for each in inner.graph.nodes):
                return True
    off = _argument(node, "train", "training") is False or _argument(node, "p", "dropout_p", "dropout") == 0
    is_random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) and not off
    return is_random or bool(written_by(node)) or _takes_batch_statistics(node)


def _takes_batch_statistics(node: fx.Node) -> bool:
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    if name == "instance_norm":  # its statistics belong to one sample each, but it may update running statistics
        return bool(_argument(node, "use_input_stats")) and _argument(node, "running_mean") is not None
    return "batch_norm" in name and _argument(node, "training", "train") is True


def _standardises_weight(node: fx.Node, sampled: Collection[fx.Node]) -> bool:
    """Whether a norm with batch statistics standardises a weight: it keeps no statistics, and no sample enters it."""
    return _takes_batch_statistics(node) and _argument(node, "running_mean") is None and node not in sampled


def _argument(node: fx.Node, *names: str) -> Any:
    """Returns the argument of an operator that has one of these names; Ellipsis if it has none."""
    schema = getattr(node.target, "_schema", None)
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.name in names:
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            return argument.default_value if given is None and argument.has_default_value() else given
    return ...
