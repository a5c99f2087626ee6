"""What in a trace depends on the sample, on what trains, and on what another call would find otherwise."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from frostline.torch._line.in_place import storage, writes
from frostline.torch._line.trace import Trace
from frostline.torch._line.tree import storage_of

# What rearranges, selects or makes values, and what takes a pass or two over them, beside what PyTorch itself calls
# pointwise. Products, convolutions, attention, recurrence and pooling are not among them.
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
class Colours:
    """The nodes of a trace, by what they depend on.

    Attributes:
        sampled: on the sample.
        trained: on a parameter that trains; here is the first one that each node meets.
        moving: on what is random or has a state, and on nothing that trains; here is the node where that begins.
    """

    sampled: frozenset[fx.Node]
    trained: dict[fx.Node, str]
    moving: dict[fx.Node, fx.Node]

    def is_below(self, node: fx.Node) -> bool:
        """Whether a value depends on the sample, and is the same in each call."""
        return node in self.sampled and node not in self.trained and node not in self.moving

    def is_above(self, node: fx.Node) -> bool:
        """Whether a value must be computed in each call."""
        return node in self.trained or node in self.moving


def colours(trace: Trace, trainable: Collection[str]) -> Colours:
    """Colours a trace.

    Args:
        trace: of a model.
        trainable: the names of the parameters that train.
    """
    written = {target.target for node in trace.graph.nodes for target in writes(node)} | _shared_statistics(trace)
    sampled: set[fx.Node] = set()
    trained: dict[fx.Node, str] = {}
    moving: dict[fx.Node, fx.Node] = {}
    for node in trace.graph.nodes:
        if node.op == "placeholder" or any(read in sampled for read in node.all_input_nodes):
            sampled.add(node)
        met = next((trained[read] for read in node.all_input_nodes if read in trained), None)
        if node.op == "get_attr" and node.target in trainable:
            trained[node] = node.target
        elif met is not None:
            trained[node] = met
        elif (node.op == "get_attr" and node.target in written) or (
            _moves(node, trace) and not _of_a_weight(node, sampled)
        ):
            moving[node] = node
        elif sources := [moving[read] for read in node.all_input_nodes if read in moving]:
            moving[node] = sources[0]
    return Colours(frozenset(sampled), trained, moving)


def _shared_statistics(trace: Trace) -> set[str]:
    """Names under which statistics are read that a norm of another name keeps: of a layer with a frozen use."""
    kept = {
        str(read.target)
        for node in trace.graph.nodes
        if _counts_the_batch(node)
        for read in (_said(node, ("running_mean",)), _said(node, ("running_var",)))
        if isinstance(read, fx.Node)
    }
    places = {storage_of(trace.tensors[name]) for name in kept}
    tensors = {name: held for name, held in trace.tensors.items() if isinstance(held, torch.Tensor)}
    return {name for name, held in tensors.items() if name not in kept and storage_of(held) in places}


def is_cheap(node: fx.Node) -> bool:
    """Whether a value may as well be computed again: it is a view, a cast, or costs a pass over its bytes."""
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if torch.Tag.pointwise in node.target.tags or node.target.overloadpacket.__name__ in CHEAP:
        return True
    return any(storage(node) == storage(read) is not None for read in node.all_input_nodes)


def _moves(node: fx.Node, trace: Trace) -> bool:
    """Whether an operator gives other values in another call, or leaves something behind."""
    if node.op != "call_function":
        return False
    for inner in (trace.tensors.get(str(read.target)) for read in node.all_input_nodes if read.op == "get_attr"):
        if isinstance(inner, fx.GraphModule) and any(
            _moves(n, Trace(inner.graph, {}, trace.result)) for n in inner.graph.nodes
        ):
            return True
    return bool(writes(node)) or _is_random(node) or _counts_the_batch(node)


def _is_random(node: fx.Node) -> bool:
    tagged = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    off = _said(node, ("train", "training")) is False or _said(node, ("p", "dropout_p", "dropout")) == 0
    return tagged and not off


def _counts_the_batch(node: fx.Node) -> bool:
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    if name == "instance_norm":  # what it takes from a sample stays with it, but it may keep statistics
        return bool(_said(node, ("use_input_stats",))) and _said(node, ("running_mean",)) is not None
    return "batch_norm" in name and _said(node, ("training", "train")) is True


def _of_a_weight(node: fx.Node, sampled: Collection[fx.Node]) -> bool:
    """Whether a norm is used to standardise a weight: it keeps no statistics, and no sample enters it."""
    return _counts_the_batch(node) and _said(node, ("running_mean",)) is None and node not in sampled


def _said(node: fx.Node, names: tuple[str, ...]) -> Any:
    """The argument of an operator of one of these names; Ellipsis if it has none."""
    schema = getattr(node.target, "_schema", None)
    for place, argument in enumerate(schema.arguments if schema is not None else ()):
        if argument.name in names:
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            return argument.default_value if given is None and argument.has_default_value() else given
    return ...
