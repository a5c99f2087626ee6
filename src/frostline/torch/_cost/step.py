"""One step of a model on tensors without data: its operations, the bytes that it keeps, and the least bytes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from frostline.torch._autograd.fake_copy import FakeTensors
from frostline.torch._autograd.saved import saving
from frostline.torch._cost.kernels import FROM_EXAMPLE, RANDOM, Kernels, LiveStorages
from frostline.torch._cost.limit import NOWHERE, GraphNode, graph, least_saved
from frostline.torch._cost.places import Places
from frostline.torch._holding.patch import patches
from frostline.torch._lean.folding import folded_weights
from frostline.torch._tensors import distinct_bytes, storage_identity, storages
from frostline.torch._tensors import tensors as tensors_in

ASKED = 1 << 62
"""The number of a wanted gradient of the example itself, beyond those of all parameters."""


@final
@dataclass(frozen=True, slots=True)
class Gradient:
    """One gradient that a step computes.

    Attributes:
        unit: the unit that computes it.
        is_weights: whether it is the gradient of parameters, not of an input.
        flops: its operations.
        least: the operations that it needs at least.
        reach: the last parameter for which it is computed, by its place in `Step.order`.
        is_of_frozen: whether no weight gradient is wanted of the same kernel.
        meets_frozen: whether the kernel has weights, and all of them are frozen.
    """

    unit: str
    is_weights: bool
    flops: int
    least: int
    reach: int
    is_of_frozen: bool
    meets_frozen: bool


@final
@dataclass(frozen=True)
class Step:
    """The operations and bytes of one step; the keys of dicts are the paths of units, except where stated.

    Attributes:
        forward: operations of the forward pass.
        repeated: operations of the forward pass that are repeated during backward.
        gradients: the computed gradients.
        saved: bytes kept for backward.
        least_saved: the least bytes that backward needs.
        received: bytes of the gradient of each parameter that got one, by name.
        order: names of the trainable parameters, in the order of their first use.
        peak: bytes at the highest point, of all tensors that the step makes.
        given: bytes of parameters, buffers and example.
    """

    forward: Counter[str]
    repeated: Counter[str]
    gradients: tuple[Gradient, ...]
    saved: dict[str, int]
    least_saved: dict[str, int]
    received: dict[str, int]
    order: tuple[str, ...]
    peak: int
    given: int


class NoGradientError(Exception):
    """No output of the model leads to a tensor that needs a gradient."""


def step(
    model: nn.Module,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    tensors: FakeTensors,
    places: Places,
    loss: Callable[[Any], Any] | None,
) -> Step:
    """Runs one step.

    Args:
        model: a fake copy.
        example: the arguments of a call, as fake tensors.
        tensors: the maker of the fake tensors.
        places: the units of the copy.
        loss: a function of the output; by default the sum of all its floating tensors.

    Raises:
        NoGradientError: no output needs a gradient.
    """
    names = {id(tensor): name for name, tensor in reversed(list(model.named_parameters(remove_duplicate=False)))}
    inputs = [leaf for leaf in tree_leaves(example) if isinstance(leaf, torch.Tensor)]
    _run_first_call(model, example, tensors, places)
    live = LiveStorages([*model.parameters(), *model.buffers(), *folded_weights(model), *inputs])
    live.mark(FROM_EXAMPLE, inputs)
    kernels = Kernels(places, live, (p for p in model.parameters() if p.requires_grad))
    with tensors.without_data(), kernels, places, torch.enable_grad():
        with saving(model, folded_weights) as saved:
            output = model(*example[0], **example[1])
            total = _total(output if loss is None else loss(output))
        order = tuple(kernels.used)
        wanted = {key: number for number, key in enumerate(order)} | {id(x): ASKED for x in inputs if x.requires_grad}
        nodes = graph(total, wanted)
        random = {storage_identity(s) for _, t in saved.held if live.is_marked(RANDOM, t) for s in storages(t)}
        least = least_saved(nodes, saved.held, saved.own | random)
        bytes_of = _bytes_by_node(saved.held, saved.own)
        beside = list(_leaves_beside(nodes))
        nodes = {number: GraphNode(None, node.reaches) for number, node in nodes.items()}
        kernels.is_backward = True
        with _gradients_restored(beside):
            total.backward()
    return Step(
        forward=kernels.forward,
        repeated=kernels.repeated,
        gradients=tuple(_gradients(kernels, nodes, places)),
        saved=_by_unit(bytes_of, places),
        least_saved=_by_unit(least, places),
        received={names[id(p)]: distinct_bytes([p.grad]) for p in model.parameters() if p.grad is not None},
        order=tuple(names[key] for key in order),
        peak=live.peak,
        given=live.given_bytes,
    )


def _run_first_call(
    model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]], tensors: FakeTensors, places: Places
) -> None:
    """Runs the first call of a lean model, in which it folds weights and chooses blocks; that is not part of a step."""
    if any(True for _ in patches(model)):
        with tensors.without_data(), Kernels(places, LiveStorages(()), ()), places, torch.enable_grad():
            model(*example[0], **example[1])


def _total(value: Any) -> torch.Tensor:
    parts = [each.sum() for each in tensors_in(value) if each.is_floating_point() and each.requires_grad]
    if not parts:
        raise NoGradientError
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _leaves_beside(nodes: Mapping[int, GraphNode]) -> Iterator[torch.Tensor]:
    """Leaves with data: they belong to modules beside the model, such as a critic in the loss."""
    for node in nodes.values():
        for edge, _ in node.function.next_functions:
            if hasattr(edge, "variable") and not isinstance(edge.variable, FakeTensor):
                yield edge.variable


@contextmanager
def _gradients_restored(leaves: list[torch.Tensor]) -> Iterator[None]:
    """Gives leaves their gradients back when the context ends."""
    gradients = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    try:
        yield
    finally:
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient


def _bytes_by_node(held: list[tuple[int, torch.Tensor]], own: frozenset[int]) -> dict[int, int]:
    seen, found = set(own), defaultdict[int, int](int)
    for number, tensor in held:
        for storage in storages(tensor):
            if storage_identity(storage) not in seen:
                seen.add(storage_identity(storage))
                found[number] += storage.nbytes()
    return found


def _by_unit(numbers: Mapping[int, int], places: Places) -> dict[str, int]:
    found = defaultdict[str, int](int)
    for number, amount in numbers.items():
        found[places.of(number)] += amount
    return dict(found)


def _gradients(kernels: Kernels, nodes: Mapping[int, GraphNode], places: Places) -> Iterator[Gradient]:
    for number, shares in kernels.shares.items():
        shared = [share.edge for share in shares]
        for share in shares:
            one = (share.edge, share.flops, share.least)
            yield _gradient(kernels, nodes.get(number), number, places, one, shared)
    for number, flops in kernels.products.items():
        node, depends = nodes.get(number), kernels.depends.get(number)
        # The two factors come last among the tensors.
        edges = [] if depends is None else [len(depends) - 2, len(depends) - 1]
        wanted = [edge for edge in edges if node is None or node.reaches[edge] is not None]
        parts: list[int | None] = [*wanted] or [None]
        for edge in parts:
            part = flops // len(parts)
            yield _gradient(kernels, node, number, places, (edge, part, part), parts)


def _gradient(
    kernels: Kernels,
    node: GraphNode | None,
    number: int,
    places: Places,
    share: tuple[int | None, int, int],
    edges: Sequence[int | None],
) -> Gradient:
    edge, flops, least = share
    depends = kernels.depends.get(number, [])
    is_weights = edge is not None and edge < len(depends) and not depends[edge]
    reach = ASKED
    if node is not None:
        found = node.reach if edge is None or edge >= len(node.reaches) else node.reaches[edge]
        reach = NOWHERE if found is None else found
    reaches = () if node is None else node.reaches
    weights = {place: r for place, (r, d) in enumerate(zip(reaches, depends, strict=False)) if not d}
    # A trainable bias needs no products, so they are still computed for other parameters.
    is_of_frozen = not any(r is not None and r != NOWHERE for place, r in weights.items() if place in edges)
    return Gradient(
        unit=places.of(number),
        is_weights=is_weights,
        flops=flops,
        least=least if reach != NOWHERE else 0,
        reach=reach,
        is_of_frozen=is_of_frozen,
        meets_frozen=is_of_frozen and bool(weights),
    )
