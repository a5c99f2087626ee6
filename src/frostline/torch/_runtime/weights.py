"""The weights that convolutions and linear maps read, in a module or in a graph: what another runtime rewrites."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

Kind = Literal["linear", "convolution"]

_ATEN = torch.ops.aten
_READERS: dict[object, Kind] = {
    _ATEN.linear: "linear",
    _ATEN.conv1d: "convolution",
    _ATEN.conv2d: "convolution",
    _ATEN.conv3d: "convolution",
    _ATEN.convolution: "convolution",
    _ATEN.conv_transpose1d: "convolution",
    _ATEN.conv_transpose2d: "convolution",
    _ATEN.conv_transpose3d: "convolution",
}


@dataclass(frozen=True)
class Weight:
    """A tensor that only convolutions, or only linear maps, read.

    Attributes:
        owner: the module that holds it.
        name: under which name.
        kind: what reads it.
    """

    owner: nn.Module
    name: str
    kind: Kind

    @property
    def tensor(self) -> Tensor:
        """The tensor itself."""
        return getattr(self.owner, self.name)

    def put(self, tensor: Tensor) -> None:
        """Sets another one in its place."""
        held = self.tensor
        setattr(self.owner, self.name, nn.Parameter(tensor, False) if isinstance(held, nn.Parameter) else tensor)


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module's structure that holds the very same tensors."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors(module)})


def tensors(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def weights(module: nn.Module) -> list[Weight]:
    """What convolutions and linear maps read and nothing else does, biases included.

    A weight that an embedding reads too is left alone: what it looks up would change with it.
    """
    found = list(_found(module))
    kinds = {id(weight.tensor): weight.kind for weight in found}
    other = {id(tensor) for tensor in _otherwise_read(module)}
    other |= {id(weight.tensor) for weight in found if kinds[id(weight.tensor)] != weight.kind}
    return [weight for weight in found if id(weight.tensor) not in other]


def _found(module: nn.Module) -> Iterator[Weight]:
    for inner in module.modules():
        if isinstance(inner, fx.GraphModule):
            yield from _in_graph(inner)
        elif kind := _kind_of(inner):
            yield from (Weight(inner, name, kind) for name in ("weight", "bias") if name in _own(inner))


def _kind_of(module: nn.Module) -> Kind | None:
    # Not of a subclass: it may do anything with its weight.
    if type(module) is nn.Linear:
        return "linear"
    return "convolution" if isinstance(module, _ConvNd) and type(module).__module__ == _ConvNd.__module__ else None


def _in_graph(module: fx.GraphModule) -> Iterator[Weight]:
    for node in module.graph.nodes:
        kind = kind_of(node)
        for read in node.args[1:3] if kind else ():
            if isinstance(read, fx.Node) and read.op == "get_attr":
                path, _, name = str(read.target).rpartition(".")
                yield Weight(module.get_submodule(path), name, kind)  # type: ignore[arg-type]


def kind_of(node: fx.Node) -> Kind | None:
    """What an operator of a graph is, if it is a convolution or a linear map."""
    return _READERS.get(getattr(node.target, "overloadpacket", None)) if node.op == "call_function" else None


def _otherwise_read(module: nn.Module) -> Iterator[Tensor]:
    graphs = [inner for inner in module.modules() if isinstance(inner, fx.GraphModule)]
    holders = {id(held) for graph in graphs for held in graph.modules()}
    for graph in graphs:
        for node in graph.graph.nodes:
            if node.op == "get_attr" and any(not kind_of(user) or user.args[0] is node for user in node.users):
                path, _, name = str(node.target).rpartition(".")
                yield getattr(graph.get_submodule(path), name)
    for inner in module.modules():
        if id(inner) not in holders and not _kind_of(inner):
            yield from _own(inner).values()


def _own(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module._parameters.items() if tensor is not None}
