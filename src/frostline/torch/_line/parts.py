"""A trace in two: what computes the boundary, and what goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from frostline.torch._line.dependence import Colours
from frostline.torch._line.trace import Trace
from frostline.torch._line.values import Pair, Passage

Code = Callable[..., list[Any]]
"""Computes one side: takes what holds the tensors, then what comes in; gives what goes out."""


@dataclass(frozen=True)
class Part:
    """One side of the line.

    Attributes:
        graph: what it computes.
        tensors: the targets in it, with the model's own objects or what else is there.
        code: the graph as a function.
    """

    graph: fx.Graph
    tensors: dict[str, Any]
    code: Code


def below(trace: Trace, kept: Sequence[fx.Node], pair: Pair) -> Part:
    """What computes the values that are kept from the inputs, samples first."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    wanted = ancestors(kept, stop=())
    for node in trace.graph.nodes:
        if node in wanted or node.op == "placeholder":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([_apart(graph, copies[node], pair.passage(node)) for node in kept])
    return _part(graph, trace)


def above(trace: Trace, kept: Sequence[fx.Node], pair: Pair, colours: Colours) -> Part:
    """What the model does from the values that are kept; what is cheap is computed again."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    given = [graph.placeholder(node.name) for node in kept]
    for node, samples in zip(kept, given, strict=True):
        copies[node] = _together(graph, samples, node, pair.passage(node))
    output = next(node for node in trace.graph.nodes if node.op == "output")
    wanted = ancestors([*output.all_input_nodes, *filter(colours.is_above, trace.graph.nodes)], stop=kept)
    for node in trace.graph.nodes:
        if node in wanted and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    # Flat: the trace puts together what the model returns in a last step of its own.
    graph.output(fx.map_arg(list(output.args[0]), copies.__getitem__))
    return _part(graph, trace)


def _apart(graph: fx.Graph, value: fx.Node, passage: Passage | None) -> fx.Node:
    assert passage is not None
    if passage.dimension:
        value = graph.call_function(torch.movedim, (value, passage.dimension, 0))
    return value if passage.times == 1 else graph.call_function(torch.unflatten, (value, 0, (-1, passage.times)))


def _together(graph: fx.Graph, samples: fx.Node, node: fx.Node, passage: Passage | None) -> fx.Node:
    assert passage is not None
    value = samples if passage.times == 1 else graph.call_function(torch.flatten, (samples, 0, 1))
    if passage.dimension:
        value = graph.call_function(torch.movedim, (value, 0, passage.dimension))
    # Whoever keeps a value keeps it without gaps; kernels and views may depend on how the model has it in memory.
    order = laid_out(node.meta["val"])
    return value if order is None else graph.call_function(in_order, (value, order))


def laid_out(value: torch.Tensor) -> tuple[int, ...] | None:
    """The dimensions of a value from the outermost in memory to the innermost; None if they are in order."""
    order = tuple(sorted(range(value.dim()), key=value.stride().__getitem__, reverse=True))
    return None if value.is_contiguous() or order == tuple(range(value.dim())) else order


def in_order(value: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The same value with its dimensions in another order in memory."""
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return value.permute(order).contiguous().permute(inverse)


def ancestors(nodes: Iterable[fx.Node], stop: Sequence[fx.Node]) -> set[fx.Node]:
    """What some nodes are computed from, themselves included, up to where to stop."""
    found: set[fx.Node] = set()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [] if node in stop else node.all_input_nodes
    return found


def _part(graph: fx.Graph, trace: Trace) -> Part:
    tensors = {node.target: trace.tensors[node.target] for node in graph.nodes if node.op == "get_attr"}
    made = fx.GraphModule(tensors or nn.Module(), graph)
    return Part(made.graph, tensors, type(made).forward)
