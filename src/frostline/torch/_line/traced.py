"""A frost line found by a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from frostline._core.errors import LineError
from frostline._core.errors.base import counted
from frostline.features.cut import least
from frostline.torch._line.cut import TracePair, paths
from frostline.torch._line.dependence import TraceDependence, dependence, is_cheap
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.parts import SideGraph, ancestors, graph_above, graph_below
from frostline.torch._line.sides import ABOVE, BELOW, CUT, Sides, changing_module, mixed_samples
from frostline.torch._line.trace import ModelTrace, trace

Graphs = tuple[SideGraph, SideGraph, pytree.TreeSpec]
"""The graphs below and above, and the structure of the model's output."""


@final
class TracedSides(Sides):
    """The sides of a line that is traced again for each new batch size and mode.

    A trace for a fixed batch size follows everything that a model does with that size, including ``len(x)``. Another
    batch size gets another trace, which must give the same line.

    Raises:
        UntraceableError: the model cannot be traced.
        LineError: nothing is below the line, or it cannot be cut.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, expression: str) -> None:
        super().__init__(model, inputs, expression)
        self._modules = list(model.modules())
        self._references: dict[Any, tuple[ModelTrace, int]] = {}
        self._graphs: dict[Any, Graphs] = {}
        self._graphs_for(inputs.batch, inputs.device)

    def below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """Computes the boundary from the leaves of a call, samples first."""
        below, _, _ = self._graphs_of(leaves)
        self.held[BELOW].follow()
        return below.run(self.held[BELOW].top, *leaves)

    def above(self, boundary: Sequence[torch.Tensor]) -> Any:
        """Computes the model's output from the boundary, samples first."""
        _, above, result = self._graphs_of(boundary)
        self.held[ABOVE].follow()
        return pytree.tree_unflatten(above.run(self.held[ABOVE].top, *boundary), result)

    def module(self, leaves: Sequence[Any]) -> fx.GraphModule:
        """Returns a module that computes the boundary with the current tensors below."""
        below, _, _ = self._graphs_of(leaves)
        held = {**below.tensors, **self.tensors_below}
        return fx.GraphModule({target: held[target] for target in below.tensors} or nn.Module(), below.graph)

    def _graphs_of(self, leaves: Sequence[Any]) -> Graphs:
        first = next(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        return self._graphs_for(len(first), first.device)

    def _graphs_for(self, batch: int, device: torch.device) -> Graphs:
        """Returns both sides for a batch size, in the current mode of the model.

        A second trace, for another number of samples, shows the dimension of samples of each value.
        """
        autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
        mode = device, autocast, tuple(module.training for module in self._modules)
        if (batch, mode) in self._graphs:
            return self._graphs[batch, mode]
        here = self._trace(batch, device)
        there, other = self._references.get(mode, (None, batch))
        if there is None or other == batch:
            there, other = self._trace(batch + 1, device), batch + 1
            self._references.setdefault(mode, (there, other))
        pair = TracePair(here.graph, there.graph, batch, other)
        if not pair.alike:
            problem = f"does something else for {counted(batch, 'sample')} than for {other}."
            raise LineError(self.expression, problem, (), CUT)
        found = dependence(here, self.trained)
        crossing = self._crossing(pair, found)
        self._check_same_line(pair, crossing)
        graphs = graph_below(here, crossing, pair), graph_above(here, crossing, pair, found)
        for held, graph in zip(self.held, graphs, strict=True):
            held.add(graph.tensors)
        self._graphs[batch, mode] = *graphs, here.result
        return self._graphs[batch, mode]

    def _trace(self, batch: int, device: torch.device) -> ModelTrace:
        made = trace(self.model, *self.inputs.zeros(batch, device), self.expression)
        self.rewritten |= made.rewritten
        return made

    def _crossing(self, pair: TracePair, found: TraceDependence) -> list[fx.Node]:
        """Returns the values that cross the line, from the cut with the fewest bytes."""
        for node in pair.nodes:
            source = found.changing.get(node)
            # Random operations directly at the line, such as dropout before a head, are computed above in each call.
            if source is None or node is source or node not in found.sampled or is_cheap(node):
                continue
            path = (paths(source) or [""])[-1]
            raise changing_module(self.model, self.expression, path, f", {source.target}")
        needed = pair.needed(found)
        names = least(pair.values(found), needed)
        if names is None:
            mixed = [node for node in pair.nodes if node.name in needed and pair.sample_dimension(node) is None]
            values = [f"{(paths(node) or ['the model'])[-1]}: {node.target}" for node in mixed]
            raise mixed_samples(self.expression, values)
        crossing = [node for node in pair.nodes if node.name in names]
        if all(node.op == "placeholder" for node in crossing):
            readers = (user for node in crossing for user in node.users)
            first = next(found.trained[user] for user in (*readers, *pair.nodes) if user in found.trained)
            problem = f"has nothing below its line: the input meets {first!r} first, which trains."
            raise LineError(self.expression, problem, (), f'Freeze what comes first: ft.freeze(model, "{first}").')
        return crossing

    def _check_same_line(self, pair: TracePair, crossing: list[fx.Node]) -> None:
        boundary, identity = pair.boundary(crossing), pair.identity(ancestors(crossing), crossing)
        if not self.boundary:
            self.boundary, self.identity = boundary, identity
        elif (boundary, identity) != (self.boundary, self.identity):
            lines = (("now", boundary), ("then", self.boundary))
            found = tuple(f"{when}: {', '.join(map(str, some))}" for when, some in lines)
            fix = "Draw the line in the mode in which it is used: line = frostline(model, *example)."
            raise LineError(self.expression, "has another line now than when it was drawn.", found, fix)
