"""What backward reads, found by trial: each operator of PyTorch is run, and saved tensors are garbled one by one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves

from frostline.torch._autograd.reads import SavedTensorRule

SAMPLES = 8
GARBAGE = (float("nan"), 77.0)
# Backward turns their values into addresses, and garbage ends the process.
ADDRESSES = {"grid_sampler_2d", "grid_sampler_3d", "nn.functional.grid_sample"}


class Packed:
    """A saved tensor that can be exchanged after the forward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = self.shown = tensor.detach()


class Kind(NamedTuple):
    """A kind of saved tensor, under one set of wanted gradients.

    Attributes:
        node: the class of the node.
        name: the name of the saved tensor.
        wanted: for each edge whether its gradient is wanted.
        bits: the least bits of an element, according to a table.
    """

    node: str
    name: str
    wanted: tuple[bool, ...]
    bits: float


def reads(table: Mapping[type, SavedTensorRule]) -> dict[Kind, bool]:
    """For each kind of saved tensor whether backward read it in any sample."""
    found: dict[Kind, bool] = {}
    for node, name, is_read in _trials():
        wanted = tuple(edge is not None for edge, _ in node.next_functions)
        rule = table.get(type(node))
        read = None if rule is None else rule.tensors.get(name)
        bits = math.inf if read is None else read(node, lambda edge, w=wanted: edge < len(w) and w[edge], None).bits
        kind = Kind(type(node).__name__, name, wanted, bits)
        found[kind] = is_read or found.get(kind, False)
    return found


def _trials() -> Iterator[tuple[Any, str, bool]]:
    warnings.simplefilter("ignore")
    for operator in op_db:
        if operator.name not in ADDRESSES and operator.supports_autograd and torch.float32 in operator.dtypes:
            for sample in islice(operator.sample_inputs_func(operator, "cpu", torch.float32, True), SAMPLES):
                leaves = tree_leaves((sample.input, sample.args, sample.kwargs))
                inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
                call = lambda s=sample, o=operator: o.op(s.input, *s.args, **s.kwargs)  # noqa: E731
                for wanted in [inputs] if len(inputs) == 1 else [inputs, *([each] for each in inputs[:3])]:
                    for each in inputs:
                        each.requires_grad_(any(each is other for other in wanted))
                    yield from _of_call(call, wanted)


def _of_call(call: Callable[[], Any], wanted: list[Tensor]) -> Iterator[tuple[Any, str, bool]]:
    packed: list[Packed] = []

    def pack(tensor: Tensor) -> Packed:
        packed.append(Packed(tensor))
        return packed[-1]

    torch.default_generator.manual_seed(0)  # torch.manual_seed writes down the stack for each device that is absent
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each.shown):
            results = [t for t in tree_leaves(call()) if isinstance(t, Tensor) and t.requires_grad]
        given = [torch.randn_like(result) for result in results]
        if not results:
            return
        differentiate = lambda: torch.autograd.grad(results, wanted, given, retain_graph=True, allow_unused=True)  # noqa: E731
        expected = differentiate()
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return
    places = dict(_places(results))
    for each in packed:
        if each in places and each.tensor.is_floating_point() and each.tensor.numel():
            yield (*places[each], not all(_is_same(differentiate, expected, each, garbage) for garbage in GARBAGE))


def _is_same(differentiate: Callable[[], Any], expected: Any, each: Packed, garbage: float) -> bool:
    each.shown = torch.full_like(each.tensor, garbage)
    try:
        gradients = differentiate()
    except RuntimeError:  # it looks at the values
        return False
    finally:
        each.shown = each.tensor
    pairs = zip(gradients, expected, strict=True)
    return all((a is None) == (b is None) and (a is None or _bits(a) == _bits(b)) for a, b in pairs)


def _bits(tensor: Tensor) -> bytes:
    dense = tensor.to_dense() if tensor.layout is not torch.strided else tensor
    return dense.detach().resolve_conj().resolve_neg().contiguous().numpy(force=True).tobytes()


def _places(results: list[Tensor]) -> Iterator[tuple[Packed, tuple[Any, str]]]:
    """The node and name of each packed tensor in a graph."""
    waiting = [result.grad_fn for result in results if result.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node: Any = waiting.pop()
        for name in (name for name in dir(node) if name.startswith("_raw_saved_")):
            slots = getattr(node, name)
            for slot in slots if isinstance(slots, tuple | list) else (slots,):
                try:
                    data = slot.data
                except (RuntimeError, AttributeError):  # nothing is saved there
                    continue
                if isinstance(data, Packed):
                    yield data, (node, name.removeprefix("_raw_saved_"))
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                waiting.append(below)
