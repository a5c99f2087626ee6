"""The graph of a step, and the least bytes that the gradients of trainable parameters need of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch

from frostline.torch._autograd.reads import KNOWN
from frostline.torch._autograd.saved import SavedTensor
from frostline.torch._tensors import storage_identity, storages

NOWHERE = -1
"""The reach of an edge that leads to no wanted tensor."""


class _Need(NamedTuple):
    """The bytes that a node needs of a storage: the whole storage, or a mask or index that follows from it."""

    storage: int
    nbytes: int
    is_whole: bool


@final
@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node of the graph.

    Attributes:
        function: the node of autograd.
        reaches: for each edge the number of the last wanted tensor behind it, `NOWHERE`, or None without an edge.
    """

    function: Any
    reaches: tuple[int | None, ...]

    @property
    def reach(self) -> int:
        """The last wanted tensor behind any edge."""
        return max((reach for reach in self.reaches if reach is not None), default=NOWHERE)


def graph(root: torch.Tensor, wanted: Mapping[int, int]) -> dict[int, GraphNode]:
    """The nodes behind a tensor, by sequence number.

    Args:
        root: a tensor with a graph.
        wanted: the number of each leaf whose gradient is wanted, by ``id``; all other leaves count as constant.
    """
    nodes: dict[int, GraphNode] = {}
    reaches: dict[Any, int] = {}
    waiting: list[Any] = [root.grad_fn]
    while waiting:
        function = waiting[-1]
        edges = [edge for edge, _ in function.next_functions]
        missing = [edge for edge in edges if edge is not None and edge not in reaches]
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        if hasattr(function, "variable"):
            reaches[function] = wanted.get(id(function.variable), NOWHERE)
            continue
        node = GraphNode(function, tuple(None if edge is None else reaches[edge] for edge in edges))
        nodes[function._sequence_nr()] = node
        reaches[function] = node.reach
    return nodes


def least_saved(
    nodes: Mapping[int, GraphNode], held: Iterable[tuple[int, torch.Tensor]], free: frozenset[int]
) -> dict[int, int]:
    """The least bytes of the saved tensors that exact gradients need, if nothing is computed twice.

    Args:
        nodes: the graph.
        held: the saved tensors, each with the number of its node.
        free: identities of storages that cost nothing, because they exist in any case.

    Returns:
        Bytes by number of the node for which they are kept.
    """
    whole: dict[int, tuple[int, int]] = {}  # identity -> number of the first node, bytes
    marks: list[tuple[int, _Need]] = []
    for number, need in _needs(nodes, held):
        if need.storage in free:
            continue
        if need.is_whole:
            whole.setdefault(need.storage, (number, need.nbytes))
        else:
            marks.append((number, need))
    least: dict[int, int] = {}
    for number, size in whole.values():
        least[number] = least.get(number, 0) + size
    for number, need in marks:
        # A mask can be computed from a tensor that another node keeps whole.
        if need.storage not in whole:
            least[number] = least.get(number, 0) + need.nbytes
    return least


def _needs(nodes: Mapping[int, GraphNode], held: Iterable[tuple[int, torch.Tensor]]) -> Iterator[tuple[int, _Need]]:
    saved: dict[int, list[torch.Tensor]] = {}
    for number, tensor in held:
        saved.setdefault(number, []).append(tensor)
    for number, tensors in saved.items():
        node = nodes.get(number)
        if node is None or node.reach == NOWHERE:
            continue
        bits = _bits(node)
        for tensor in tensors:
            least = 1 if tensor.dtype is torch.bool else math.inf
            for storage in storages(tensor):
                key, size = storage_identity(storage), storage.nbytes()
                each = bits.get(key, least)
                # A mask of an expanded tensor would take more than the tensor.
                if each >= 8 * tensor.element_size() or tensor.numel() * each >= 8 * size:
                    yield number, _Need(key, size, is_whole=True)
                else:
                    yield number, _Need(key, math.ceil(tensor.numel() * each / 8), is_whole=False)


def _bits(node: GraphNode) -> dict[int, float]:
    """The least bits of an element for each storage that a rule speaks of."""
    rule = KNOWN.get(type(node.function))
    if rule is None:
        return {}

    def wants(edge: int) -> bool:
        reach = node.reaches[edge] if edge < len(node.reaches) else None
        return reach is not None and reach != NOWHERE

    found: dict[int, float] = {}
    for name, read in rule.tensors.items():
        # The raw slot, because reading the tensor itself would make a checkpoint compute it.
        kept = getattr(node.function, f"_raw_saved_{name}").data
        if isinstance(kept, SavedTensor):
            bits = read(node.function, wants, None).bits
            found |= {storage_identity(storage): bits for tensor in kept.tensors for storage in storages(tensor)}
    return found
