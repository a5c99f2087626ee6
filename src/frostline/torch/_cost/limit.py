"""The graph of a step, and what of it the gradients of trainable parameters need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from frostline.torch._autograd.reads import Need, read_by

NOWHERE = -1
"""The reach of an edge behind which nothing wanted lies."""


@final
@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph.

    Attributes:
        function: what autograd calls.
        reaches: of each edge, the last wanted tensor behind it, by number; `NOWHERE`; None where there is no edge.
    """

    function: Any
    reaches: tuple[int | None, ...]

    @property
    def reach(self) -> int:
        """The last wanted tensor behind any edge."""
        return max((reach for reach in self.reaches if reach is not None), default=NOWHERE)


def graph(root: torch.Tensor, wanted: Mapping[int, int]) -> dict[int, Node]:
    """The nodes behind a tensor, by sequence number.

    Args:
        root: a tensor with a graph.
        wanted: number of each leaf whose gradient is wanted, by ``id``; another leaf is as if it needed none.
    """
    nodes: dict[int, Node] = {}
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
        node = Node(function, tuple(None if edge is None else reaches[edge] for edge in edges))
        nodes[function._sequence_nr()] = node
        reaches[function] = node.reach
    return nodes


def least_saved(
    nodes: Mapping[int, Node], held: Iterable[tuple[int, torch.Tensor]], free: frozenset[int]
) -> dict[int, int]:
    """The least bytes that exact gradients need of what is saved, if nothing is computed twice.

    Args:
        nodes: the graph.
        held: the number of the node that saved it, and the tensor.
        free: identities of storages that cost nothing, because they are there anyway.

    Returns:
        Bytes by number of the node for which they are kept.
    """
    whole: dict[int, tuple[int, int]] = {}  # identity -> number of the first node, bytes
    marks: list[tuple[int, Need]] = []
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
        # A mask can be read off a tensor that is kept whole for somebody else.
        if need.storage not in whole:
            least[number] = least.get(number, 0) + need.nbytes
    return least


def _needs(nodes: Mapping[int, Node], held: Iterable[tuple[int, torch.Tensor]]) -> Iterable[tuple[int, Need]]:
    saved: dict[int, list[torch.Tensor]] = {}
    for number, tensor in held:
        saved.setdefault(number, []).append(tensor)
    for number, tensors in saved.items():
        node = nodes.get(number)
        if node is not None and node.reach != NOWHERE:
            yield from ((number, need) for need in read_by(node.function, node.reaches, tensors))
