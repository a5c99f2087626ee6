"""What may cross the line: which dimension is the sample's, how many bytes it takes, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx

from frostline.features.boundary import Boundary
from frostline.features.cut import Value
from frostline.torch._line.dependence import Colours, is_cheap
from frostline.torch._tensors import dtype_name


@dataclass(frozen=True)
class Passage:
    """How a value of a batch becomes values of samples, and back.

    Attributes:
        dimension: the one that is the samples'.
        times: how many entries each sample has in it.
    """

    dimension: int
    times: int

    def apart(self, value: torch.Tensor) -> torch.Tensor:
        """The value with the sample as its first dimension."""
        first = value.movedim(self.dimension, 0)
        return first if self.times == 1 else first.unflatten(0, (-1, self.times))

    def together(self, samples: torch.Tensor) -> torch.Tensor:
        """The value as the model has it."""
        first = samples if self.times == 1 else samples.flatten(0, 1)
        return first.movedim(0, self.dimension)


def passage_of(here: torch.Tensor, there: torch.Tensor, batch: int, other: int) -> Passage | None:
    """How a value goes by samples, from what it is for `batch` of them and for `other`."""
    if here.dim() != there.dim():
        return None
    pairs = list(zip(here.shape, there.shape, strict=True))
    differing = [dimension for dimension, (a, b) in enumerate(pairs) if a != b]
    if len(differing) != 1:
        return None
    times = pairs[differing[0]][0] // batch
    return Passage(differing[0], times) if pairs[differing[0]] == (times * batch, times * other) else None


class Pair:
    """Two traces of one model for two batch sizes, node beside node.

    PyTorch leaves ``contiguous`` out where a tensor is contiguous already, as it may be for one sample and not for two;
    such nodes have no counterpart.

    Args:
        here: the trace for `batch` samples.
        there: the trace for `other` samples.
        batch: how many samples.
        other: another number of them.
    """

    def __init__(self, here: fx.Graph, there: fx.Graph, batch: int, other: int) -> None:
        self.nodes = list(here.nodes)
        self.batch, self.other = batch, other
        self._sides = [[node for node in graph.nodes if not is_passing(node)] for graph in (here, there)]
        self.beside = dict(zip(*self._sides, strict=False))

    @cached_property
    def alike(self) -> bool:
        """Whether the two do the same, but for numbers that may be the batch size."""
        words = [
            [(n.op, n.target, *(place[passed(r)] for r in n.all_input_nodes)) for n in side]
            for side, place in ((side, {n: p for p, n in enumerate(side)}) for side in self._sides)
        ]
        return words[0] == words[1]

    def passage(self, node: fx.Node) -> Passage | None:
        """How a value goes by samples: the one dimension that grows with them. None where there is no such one."""
        here, there = _value(node), _value(self.beside.get(node))
        return None if here is None or there is None else passage_of(here, there, self.batch, self.other)

    def bytes(self, node: fx.Node) -> int | None:
        """The bytes of a value that are one sample's; None where it cannot be kept by samples."""
        value = _value(node)
        return value.nbytes // self.batch if value is not None and self.passage(node) is not None else None

    def boundary(self, kept: Sequence[fx.Node]) -> tuple[Boundary, ...]:
        """What crosses the line, for one sample."""
        names = [_path(node) for node in kept]
        return tuple(
            Boundary(
                name=name if names.count(name) == 1 else f"{name}:{node.name}",
                shape=self._shape(node),
                dtype=dtype_name(node.meta["val"].dtype),
                bytes=self.bytes(node) or 0,
            )
            for name, node in zip(names, kept, strict=True)
        )

    def _shape(self, node: fx.Node) -> tuple[int, ...]:
        passage = self.passage(node)
        assert passage is not None
        return tuple(passage.apart(node.meta["val"]).shape[1:])


def is_passing(node: fx.Node) -> bool:
    """Whether a node changes nothing but how its value lies in memory."""
    return node.target is torch.ops.aten.contiguous.default


def passed(node: fx.Node) -> fx.Node:
    """The node whose value this is, wherever it lies."""
    return passed(node.all_input_nodes[0]) if is_passing(node) else node


def values(pair: Pair, colours: Colours) -> list[Value]:
    """What a cut may keep."""
    return [
        Value(
            name=node.name,
            bytes=pair.bytes(node),
            reads=tuple(read.name for read in node.all_input_nodes if colours.is_below(read)),
            cheap=node.op != "placeholder" and is_cheap(node),
        )
        for node in pair.nodes
        if colours.is_below(node)
    ]


def needed(nodes: Sequence[fx.Node], colours: Colours) -> list[str]:
    """The names of the values that what is above reads, or that the model returns as they are."""
    readers = [node for node in nodes if node.op == "output" or colours.is_above(node)]
    return [read.name for node in readers for read in node.all_input_nodes if colours.is_below(read)]


def _value(node: fx.Node | None) -> torch.Tensor | None:
    value: Any = node.meta.get("val") if node is not None else None
    return value if isinstance(value, torch.Tensor) and value.layout is torch.strided else None


def _path(node: fx.Node) -> str:
    """The largest module whose output this is, or else the module that computes it."""
    stack = paths(node)
    outside = [set(paths(user)) for user in node.users]
    whole = [path for path in stack if outside and not any(path in around for around in outside)]
    return whole[0] if whole else stack[-1] if stack else str(node.target if node.op == "placeholder" else node.name)


def paths(node: fx.Node) -> list[str]:
    """The paths of the modules around an operator, outermost first, without the model itself."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in stack.values() if path]
