"""Splitting a trace into the graph that computes the boundary and the graph that continues from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from frostline.torch._line.cut import TracePair
from frostline.torch._line.dependence import TraceDependence
from frostline.torch._line.trace import ModelTrace


@dataclass(frozen=True)
class SideGraph:
    """One side of the line, for one batch size.

    Attributes:
        graph: its operators.
        tensors: the targets in it, with the model's own objects or constants of the trace.
        run: the graph as a function: it takes the module that holds the tensors, then the inputs; it returns the
            outputs.
    """

    graph: fx.Graph
    tensors: dict[str, Any]
    run: Callable[..., list[Any]]

    @classmethod
    def of(cls, graph: fx.Graph, trace: ModelTrace) -> SideGraph:
        """Returns a part of a trace with its tensors."""
        tensors = {node.target: trace.tensors[node.target] for node in graph.nodes if node.op == "get_attr"}
        made = fx.GraphModule(tensors or nn.Module(), graph)
        return cls(made.graph, tensors, type(made).forward)


def graph_below(trace: ModelTrace, crossing: Sequence[fx.Node], pair: TracePair) -> SideGraph:
    """Returns the graph that computes the boundary from the inputs, samples first."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    wanted = ancestors(crossing)
    for node in trace.graph.nodes:
        if node in wanted or node.op == "placeholder":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    outputs = []
    for node in crossing:
        value, found = copies[node], pair.sample_dimension(node)
        assert found is not None
        if found.dimension:
            value = graph.call_function(torch.movedim, (value, found.dimension, 0))
        if found.times > 1:
            value = graph.call_function(torch.unflatten, (value, 0, (-1, found.times)))
        outputs.append(value)
    graph.output(outputs)
    return SideGraph.of(graph, trace)


def graph_above(trace: ModelTrace, crossing: Sequence[fx.Node], pair: TracePair, found: TraceDependence) -> SideGraph:
    """Returns the graph from the boundary to the output, which computes cheap values again."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    given = [graph.placeholder(node.name) for node in crossing]
    for node, samples in zip(crossing, given, strict=True):
        copies[node] = _as_batch(graph, samples, node, pair)
    output = next(node for node in trace.graph.nodes if node.op == "output")
    wanted = ancestors([*output.all_input_nodes, *filter(found.is_above, trace.graph.nodes)], stop=crossing)
    for node in trace.graph.nodes:
        if node in wanted and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    # Flat: the structure of the output is built in a last step, outside the graph.
    graph.output(fx.map_arg(list(output.args[0]), copies.__getitem__))
    return SideGraph.of(graph, trace)


def _as_batch(graph: fx.Graph, samples: fx.Node, node: fx.Node, pair: TracePair) -> fx.Node:
    found, value = pair.sample_dimension(node), samples
    assert found is not None
    if found.times > 1:
        value = graph.call_function(torch.flatten, (value, 0, 1))
    if found.dimension:
        value = graph.call_function(torch.movedim, (value, 0, found.dimension))
    # A stored value has no gaps, but kernels and views may depend on its memory layout in the model.
    was: torch.Tensor = node.meta["val"]
    order = tuple(sorted(range(was.dim()), key=was.stride().__getitem__, reverse=True))
    if was.is_contiguous() or order == tuple(range(was.dim())):
        return value
    return graph.call_function(with_layout, (value, order))


def with_layout(value: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """Returns the value with its dimensions in another order in memory, outermost first."""
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return value.permute(order).contiguous().permute(inverse)


def ancestors(nodes: Iterable[fx.Node], stop: Sequence[fx.Node] = ()) -> set[fx.Node]:
    """Returns some nodes and all nodes from which they are computed, up to the nodes at which to stop."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [] if node in stop else node.all_input_nodes
    return found
