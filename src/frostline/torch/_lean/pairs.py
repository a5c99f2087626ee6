"""Pairs of a convolution and a batch norm that is the only reader of its result."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import fx, nn

from frostline.torch._holding.classes import original_class
from frostline.torch._holding.patch import Patch

NORM_OF: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
    nn.ConvTranspose1d: nn.BatchNorm1d,
    nn.ConvTranspose2d: nn.BatchNorm2d,
    nn.ConvTranspose3d: nn.BatchNorm3d,
}
"""Exact classes, because a subclass may use its weight differently."""


@final
@dataclass(frozen=True, eq=False)
class Pair:
    """A convolution and the batch norm behind it.

    Attributes:
        caller: the module whose forward calls both.
        conv: called once there; only `norm` reads its result.
        norm: called once there, on the result of `conv`.
    """

    caller: nn.Module
    conv: nn.Module
    norm: nn.Module


def pairs(model: nn.Module) -> list[Pair]:
    """The pairs in a model, except those with a module that has two places or a tensor that is tied."""
    unique = _used_once(model)
    kept = [*model.parameters(), *model.buffers()]
    callers = [caller for caller in model.modules() if _may_call_a_pair(caller)]
    found = [pair for caller in callers for pair in _pairs_in(caller, kept) if _is_unique(pair, unique)]
    convs = Counter(id(pair.conv) for pair in found)
    norms = Counter(id(pair.norm) for pair in found)
    return [pair for pair in found if convs[id(pair.conv)] == norms[id(pair.norm)] == 1]


def _used_once(model: nn.Module) -> frozenset[int]:
    """The ``id`` of each module and parameter with one place in the model."""
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    tensors = [p for module in dict.fromkeys(modules) for p in module._parameters.values() if p is not None]
    places = Counter(map(id, modules)) + Counter(map(id, tensors))
    return frozenset(key for key, count in places.items() if count == 1)


def _is_unique(pair: Pair, unique: frozenset[int]) -> bool:
    parts = (pair.conv, pair.norm)
    return all(id(item) in unique for part in parts for item in (part, *part._parameters.values()) if item is not None)


def _may_call_a_pair(caller: nn.Module) -> bool:
    near = set(map(original_class, _near(caller)))
    has_both = any(conv in near and norm in near for conv, norm in NORM_OF.items())
    return has_both and has_own_forward(caller)


def _near(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the children of a module, including those in containers without a forward."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _near(child)
        else:
            yield child


def has_own_forward(module: nn.Module) -> bool:
    """Whether a call runs the forward of the module's class, which nobody has replaced."""
    forward = module.__dict__.get("forward")
    while isinstance(forward, Patch):
        forward = forward.earlier
    return forward is None


@final
class _Tracer(fx.Tracer):
    """Records the modules that a forward calls, without entering them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Treats every module as a leaf."""
        return True


def _pairs_in(caller: nn.Module, kept: list[torch.Tensor]) -> list[Pair]:
    """The pairs that a module calls both in training and in evaluation mode; none if it cannot be traced."""
    graphs = [_graph(caller, kept, training=training) for training in (True, False)]
    names = [set(_names(graph)) for graph in graphs]
    found = [Pair(caller, caller.get_submodule(c), caller.get_submodule(n)) for c, n in sorted(names[0] & names[1])]
    return [pair for pair in found if _goes_together(pair)]


def _graph(caller: nn.Module, kept: list[torch.Tensor], *, training: bool) -> fx.Graph:
    # A copy is traced, because a forward may store results in its module.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), warnings.catch_warnings(action="ignore"):
            copied = copy.deepcopy(caller, {id(tensor): tensor for tensor in kept})
            for module in copied.modules():
                module.training = training
            return _Tracer().trace(copied)
    except Exception:  # noqa: BLE001 - the forward is the user's code, and may raise anything on a proxy
        return fx.Graph()


def _names(graph: fx.Graph) -> Iterator[tuple[str, str]]:
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for norm in graph.nodes:
        conv: Any = norm.args[0] if len(norm.args) == 1 and not norm.kwargs else None
        if norm.op != "call_module" or not isinstance(conv, fx.Node) or conv.op != "call_module":
            continue
        if calls[conv.target] == calls[norm.target] == 1 and list(conv.users) == [norm]:
            yield str(conv.target), str(norm.target)


def _goes_together(pair: Pair) -> bool:
    conv, norm = pair.conv, pair.norm
    return (
        NORM_OF.get(original_class(conv)) is original_class(norm)
        and conv.out_channels == norm.num_features
        and has_own_forward(conv)
        and has_own_forward(norm)
    )
