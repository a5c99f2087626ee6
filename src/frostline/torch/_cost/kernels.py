"""What the kernels of a step spend, and for whom."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from frostline.torch._autograd.flops import Share, backward_shares, forward_flops
from frostline.torch._autograd.integers import run, tensors
from frostline.torch._autograd.workspace import with_workspace
from frostline.torch._cost.alive import Alive
from frostline.torch._cost.places import Places

FLOWING = "depends on the example"
TOSSED = "coins tossed by dropout, which a seed tosses again"
_COINS = {torch.ops.aten.bernoulli_, torch.ops.aten.bernoulli, torch.ops.aten.native_dropout}


@final
class Kernels(TorchDispatchMode):
    """Sees each kernel of a step below autograd.

    Attributes:
        forward: operations of the forward pass, by unit.
        repeated: operations of forward kernels that ran again during backward, by unit.
        shares: what backward kernels spent on each gradient, by the number of the node.
        products: operations of plain products in backward, by the number of the node.
        depends: by the number of a node, whether each of its tensor arguments depends on the example.
        used: the parameters, as ``id``, in the order in which they were first used.
    """

    def __init__(self, places: Places, alive: Alive, parameters: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.places, self.alive = places, alive
        self.forward: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.shares: dict[int, list[Share]] = defaultdict(list)
        self.products: Counter[int] = Counter()
        self.depends: dict[int, list[bool]] = {}
        self.used: dict[int, None] = {}
        self.is_backward = False
        self._parameters = {id(parameter) for parameter in parameters}

    def __torch_dispatch__(self, kernel: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if kernel.namespace == "prim":  # asks where a tensor is, which is most of all calls
            return kernel(*args, **(kwargs or {}))
        made = with_workspace(kernel, args, run(kernel, args, kwargs or {}, self.alive.knows))
        self._follow(list(tensors(args)), list(tensors(made)))
        if kernel.overloadpacket in _COINS:
            self.alive.mark(TOSSED, list(tensors(made))[-1:])
        self._charge(kernel, args, made)
        return made

    def _follow(self, given: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        self.alive.see(made)
        self.used.update(dict.fromkeys(id(each) for each in given if id(each) in self._parameters))
        if any(self.alive.is_marked(FLOWING, each) for each in given):
            self.alive.mark(FLOWING, made)

    def _charge(self, kernel: Any, args: Any, made: Any) -> None:
        node = torch._C._current_autograd_node()
        is_gradient = self.is_backward and node is not None and not torch.is_grad_enabled()
        if is_gradient:
            self.shares[node._sequence_nr()].extend(backward_shares(kernel, args))
        flops = forward_flops(kernel, args, made)
        if not flops:
            return
        if is_gradient:
            self.products[node._sequence_nr()] += flops
            return
        unit = self.places.current if node is None or self.places.is_inside else self.places.of(node._sequence_nr())
        (self.repeated if self.is_backward else self.forward)[unit] += flops
        if torch.is_grad_enabled() and any(each.requires_grad for each in tensors(args)):
            # The node of this kernel was made just before it.
            self.depends[torch.autograd._get_sequence_nr() - 1] = list(self._dependence(args))

    def _dependence(self, args: Any) -> Iterator[bool]:
        """Of each leading argument that can have a gradient, as the edges of the node are."""
        for value in args:
            if isinstance(value, list | tuple) and any(isinstance(each, torch.Tensor) for each in value):
                yield from self._dependence(value)
            elif value is None:
                yield False
            elif isinstance(value, torch.Tensor):
                if value.is_floating_point() or value.is_complex():  # positions have no edge
                    yield self.alive.is_marked(FLOWING, value)
            else:
                return
