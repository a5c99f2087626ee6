"""The weights of convolutions and linear maps in a graph, which another runtime replaces."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

Kind = Literal["linear", "convolution"]

_ATEN = torch.ops.aten
_CONVOLUTIONS = (_ATEN.conv1d, _ATEN.conv2d, _ATEN.conv3d, _ATEN.convolution)
_TRANSPOSED = (_ATEN.conv_transpose1d, _ATEN.conv_transpose2d, _ATEN.conv_transpose3d)
_READERS: dict[object, Kind] = {_ATEN.linear: "linear", **dict.fromkeys(_CONVOLUTIONS + _TRANSPOSED, "convolution")}


@dataclass(frozen=True)
class Weight:
    """A tensor that only convolutions, or only linear maps, read.

    Attributes:
        owner: the module that holds it.
        name: its name there.
        kind: the operators that read it.
    """

    owner: nn.Module
    name: str
    kind: Kind

    @property
    def tensor(self) -> Tensor:
        """The tensor itself."""
        return getattr(self.owner, self.name)

    def put(self, tensor: Tensor) -> None:
        """Replaces it in its owner, in place."""
        is_parameter = isinstance(self.tensor, nn.Parameter)
        setattr(self.owner, self.name, nn.Parameter(tensor, False) if is_parameter else tensor)


def copied(module: fx.GraphModule) -> fx.GraphModule:
    """Returns a copy of a module's structure with the same tensor objects."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]})


def graphs_of(module: fx.GraphModule) -> list[fx.GraphModule]:
    """Returns a module and the modules inside it that have a graph of their own."""
    return [inner for inner in module.modules() if isinstance(inner, fx.GraphModule)]


def kind_of(node: fx.Node) -> Kind | None:
    """Returns the kind of an operator of a graph, convolution or linear map, or None."""
    return _READERS.get(getattr(node.target, "overloadpacket", None)) if node.op == "call_function" else None


def weights(module: fx.GraphModule) -> list[Weight]:
    """Returns the weights and biases that only convolutions, or only linear maps, read.

    A weight that an embedding also reads is left out, because the output of the embedding would change with it.
    """
    places: list[tuple[nn.Module, str, Tensor]] = []
    readers: dict[int, set[Kind | None]] = defaultdict(set)
    for graph in graphs_of(module):
        for node in graph.graph.find_nodes(op="get_attr"):
            path, _, name = str(node.target).rpartition(".")
            owner = graph.get_submodule(path)
            tensor = getattr(owner, name)
            if isinstance(tensor, Tensor):
                places.append((owner, name, tensor))
                # A linear map may also have it as an input.
                readers[id(tensor)] |= {None if user.args[:1] == (node,) else kind_of(user) for user in node.users}
    found = []
    for owner, name, tensor in places:
        kinds = list(readers[id(tensor)])
        if len(kinds) == 1 and kinds[0] is not None:
            found.append(Weight(owner, name, kinds[0]))
    return found
