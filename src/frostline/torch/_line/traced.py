"""A frost line that a trace has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from frostline.features.boundary import Boundary
from frostline.features.cut import least
from frostline.torch._line import faults, refusals
from frostline.torch._line import parts as _line_parts
from frostline.torch._line.dependence import Colours, colours
from frostline.torch._line.inputs import Inputs
from frostline.torch._line.text import text
from frostline.torch._line.trace import Trace, trace
from frostline.torch._line.tree import Tree, trained
from frostline.torch._line.values import Pair, needed, values

BELOW, ABOVE = 0, 1


@dataclass(frozen=True)
class Cut:
    """The two sides of a line, for one batch size and mode.

    Attributes:
        parts: what computes the boundary, and what goes on from there.
        result: how the outputs make up what the model returns.
    """

    parts: tuple[_line_parts.Part, _line_parts.Part]
    result: pytree.TreeSpec


@final
class Traced:
    """The line of a model, traced anew for each batch size and mode that it meets.

    A trace for a fixed batch size follows whatever a model does with that size, ``len(x)`` included. The batch size
    stays free, because for another one there is another trace; it must give the same line.

    Args:
        model: the model.
        inputs: an example.
        expression: what the user wrote.

    Attributes:
        boundary: what crosses the line.
        identity: what is below, as a text.
        rewritten: the names of functions with a backward of their own, which a trace does not keep.

    Raises:
        UntraceableError: the model cannot be traced.
        LineError: there is nothing below the line, or it cannot be cut.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, expression: str) -> None:
        self.model, self.inputs, self.expression = model, inputs, expression
        self.boundary: tuple[Boundary, ...] = ()
        self.identity = ""
        self.rewritten: set[str] = set()
        self.tops = nn.Module(), nn.Module()
        self._trees = Tree(model, self.tops[BELOW]), Tree(model, self.tops[ABOVE])
        self._modules = list(model.modules())
        # What is frozen later was above when the line was drawn, and stays there.
        self._trained = trained(model)
        self._references: dict[Any, tuple[Trace, int]] = {}
        self._cuts: dict[Any, Cut] = {}
        self._cut(inputs.batch, inputs.device)

    def below(self, leaves: Sequence[Any]) -> list[torch.Tensor]:
        """The boundary of samples."""
        cut = self._for(leaves)
        self._trees[BELOW].follow()
        return cut.parts[BELOW].code(self.tops[BELOW], *leaves)

    def above(self, boundary: Sequence[torch.Tensor]) -> Any:
        """What the model returns, from the boundary."""
        cut = self._for(boundary)
        self._trees[ABOVE].follow()
        return pytree.tree_unflatten(cut.parts[ABOVE].code(self.tops[ABOVE], *boundary), cut.result)

    def module(self, leaves: Sequence[Any]) -> fx.GraphModule:
        """What computes the boundary, as a module that holds the tensors below as they are now."""
        part = self._for(leaves).parts[BELOW]
        held = {**part.tensors, **self.tensors(BELOW)}
        return fx.GraphModule({target: held[target] for target in part.tensors} or nn.Module(), part.graph)

    def tensors(self, side: int) -> Mapping[str, torch.Tensor]:
        """The tensors that the model has now, below (0) or above (1) the line, by name."""
        return self._trees[side].tensors()

    def follow(self) -> None:
        """Sees to it that what is above holds the tensors that the model has now."""
        self._trees[ABOVE].follow()

    def _for(self, leaves: Sequence[Any]) -> Cut:
        first = next(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        return self._cut(len(first), first.device)

    def _cut(self, batch: int, device: torch.device) -> Cut:
        """The two sides for a batch size, in the mode that the model is in."""
        autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
        mode = device, autocast, tuple(module.training for module in self._modules)
        if (batch, mode) not in self._cuts:
            self._cuts[batch, mode] = self._made(batch, mode)
        return self._cuts[batch, mode]

    def _made(self, batch: int, mode: tuple[Any, ...]) -> Cut:
        here = self._trace(batch, mode[0])
        there, other = self._reference(batch, mode)
        pair = Pair(here.graph, there.graph, batch, other)
        if not pair.alike:
            raise refusals.other_batch(self.expression, batch, other)
        found = colours(here, self._trained)
        faults.refuse_moving(self.model, self.expression, pair.nodes, found)
        kept = self._kept(pair, found)
        parts = _line_parts.below(here, kept, pair), _line_parts.above(here, kept, pair, found)
        self._agree(pair.boundary(kept), text(pair, kept))
        for tree, part in zip(self._trees, parts, strict=True):
            tree.add(part.tensors)
        return Cut(parts, here.result)

    def _reference(self, batch: int, mode: tuple[Any, ...]) -> tuple[Trace, int]:
        """A trace for another number of samples, and that number."""
        if mode in self._references and self._references[mode][1] != batch:
            return self._references[mode]
        made = self._trace(batch + 1, mode[0]), batch + 1
        self._references.setdefault(mode, made)
        return made

    def _kept(self, pair: Pair, found: Colours) -> list[fx.Node]:
        names = least(values(pair, found), needed(pair.nodes, found))
        if names is None:
            raise faults.uncut(self.expression, pair, found)
        faults.refuse_nothing_below(self.expression, pair.nodes, names, found)
        return [node for node in pair.nodes if node.name in names]

    def _agree(self, boundary: tuple[Boundary, ...], identity: str) -> None:
        if not self.boundary:
            self.boundary, self.identity = boundary, identity
        elif (boundary, identity) != (self.boundary, self.identity):
            raise refusals.other_line(self.expression, boundary, self.boundary)

    def _trace(self, batch: int, device: torch.device) -> Trace:
        args, kwargs = self.inputs.zeros(batch, device)
        made = trace(self.model, args, kwargs, self.expression)
        self.rewritten |= made.rewritten
        return made
