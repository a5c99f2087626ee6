"""Values that may cross the line: their dimension of samples, their bytes and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from frostline.features.boundary import Boundary
from frostline.features.cut import CutValue
from frostline.torch._line.dependence import TraceDependence, is_cheap
from frostline.torch._tensors import dtype_name


@dataclass(frozen=True)
class SampleDimension:
    """Converts the value of a batch to values of samples, and back.

    Attributes:
        dimension: the dimension that grows with the number of samples.
        times: the number of entries of each sample in it.
    """

    dimension: int
    times: int

    @classmethod
    def of(cls, here: torch.Tensor, there: torch.Tensor, batch: int, other: int) -> SampleDimension | None:
        """Returns the only dimension in which a value differs between `batch` and `other` samples, or None."""
        if here.dim() != there.dim():
            return None
        differing = [place for place in range(here.dim()) if here.shape[place] != there.shape[place]]
        if len(differing) != 1:
            return None
        (place,) = differing
        times = here.shape[place] // batch
        fits = (here.shape[place], there.shape[place]) == (times * batch, times * other)
        return cls(place, times) if fits else None

    def by_sample(self, value: torch.Tensor) -> torch.Tensor:
        """Returns the value of a batch with the sample as its first dimension."""
        first = value.movedim(self.dimension, 0)
        return first if self.times == 1 else first.unflatten(0, (-1, self.times))

    def as_batch(self, samples: torch.Tensor) -> torch.Tensor:
        """Returns the value in the layout of the model."""
        first = samples if self.times == 1 else samples.flatten(0, 1)
        return first.movedim(0, self.dimension)


class TracePair:
    """Two traces of one model for two batch sizes, node beside node.

    PyTorch leaves ``contiguous`` out where a tensor is contiguous already, as it may be for one sample and not for two;
    such nodes have no counterpart.

    Args:
        here: the trace for `batch` samples.
        there: the trace for `other` samples.
        batch: the number of samples.
        other: another number of samples.
    """

    def __init__(self, here: fx.Graph, there: fx.Graph, batch: int, other: int) -> None:
        self.nodes = list(here.nodes)
        self.batch, self.other = batch, other
        self._sides = [[node for node in graph.nodes if not _is_contiguous(node)] for graph in (here, there)]
        self._beside = dict(zip(*self._sides, strict=False))

    @property
    def alike(self) -> bool:
        """Whether the two traces are equal, except for numbers that may be the batch size."""
        steps = []
        for side in self._sides:
            place = {node: number for number, node in enumerate(side)}
            steps.append([(n.op, n.target, *(place[_source(read)] for read in n.all_input_nodes)) for n in side])
        return steps[0] == steps[1]

    def sample_dimension(self, node: fx.Node) -> SampleDimension | None:
        """Returns the dimension of a value that grows with the number of samples, or None."""
        here, there = (each.meta.get("val") if each else None for each in (node, self._beside.get(node)))
        if not isinstance(here, torch.Tensor) or not isinstance(there, torch.Tensor):
            return None
        if not here.layout is there.layout is torch.strided:
            return None
        return SampleDimension.of(here, there, self.batch, self.other)

    def values(self, found: TraceDependence) -> list[CutValue]:
        """Returns the values that may cross the line."""
        return [
            CutValue(
                name=node.name,
                bytes=node.meta["val"].nbytes // self.batch if self.sample_dimension(node) is not None else None,
                reads=tuple(read.name for read in node.all_input_nodes if found.is_below(read)),
                cheap=node.op != "placeholder" and is_cheap(node),
            )
            for node in self.nodes
            if found.is_below(node)
        ]

    def needed(self, found: TraceDependence) -> list[str]:
        """Returns the names of the values below that the part above reads or the model returns."""
        readers = [node for node in self.nodes if node.op == "output" or found.is_above(node)]
        return [read.name for node in readers for read in node.all_input_nodes if found.is_below(read)]

    def boundary(self, crossing: Sequence[fx.Node]) -> tuple[Boundary, ...]:
        """Returns the values that cross the line, for one sample."""
        names = [_path(node) for node in crossing]
        found = []
        for name, node in zip(names, crossing, strict=True):
            own, value = name if names.count(name) == 1 else f"{name}:{node.name}", node.meta["val"]
            dimension = self.sample_dimension(node)
            assert dimension is not None
            shape = tuple(dimension.by_sample(value).shape[1:])
            found.append(Boundary(own, shape, dtype_name(value.dtype), value.nbytes // self.batch))
        return tuple(found)

    def identity(self, wanted: set[fx.Node], crossing: Sequence[fx.Node]) -> str:
        """Returns the nodes below as a text that is equal for every batch size; it ends with the values that cross."""
        nodes = [node for node in self.nodes if node in wanted and not _is_contiguous(node)]
        number = {node: f"%{place}" for place, node in enumerate(nodes)}

        def word(mine: Any, other: Any) -> str:
            if isinstance(mine, fx.Node):
                return number[_source(mine)]
            if isinstance(mine, torch.device):
                return "device"
            if isinstance(mine, int) and mine != other:
                return f"{mine // self.batch} x samples"
            return repr(mine)

        lines = []
        for node in nodes:
            here, there = (pytree.tree_leaves((each.args, each.kwargs)) for each in (node, self._beside[node]))
            lines.append(f"{node.op} {node.target} {' '.join(map(word, here, there))}")
        return "\n".join([*lines, " ".join(number[_source(node)] for node in crossing)])


def _is_contiguous(node: fx.Node) -> bool:
    return node.target is torch.ops.aten.contiguous.default


def _source(node: fx.Node) -> fx.Node:
    """Returns the node that computes this value, in any memory layout."""
    return _source(node.all_input_nodes[0]) if _is_contiguous(node) else node


def _path(node: fx.Node) -> str:
    """Returns the path of the largest module with this output, or else of the module that computes it."""
    stack = paths(node)
    outside = [set(paths(user)) for user in node.users]
    largest = [path for path in stack if outside and not any(path in around for around in outside)]
    if largest or stack:
        return largest[0] if largest else stack[-1]
    return str(node.target if node.op == "placeholder" else node.name)


def paths(node: fx.Node) -> list[str]:
    """Returns the paths of the modules around an operator, outermost first, without the model itself."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in stack.values() if path]
