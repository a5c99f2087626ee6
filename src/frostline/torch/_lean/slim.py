"""Make what a call has saved for backward smaller."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.graph import Node

from frostline.torch._lean.codecs import Codec, Dropped
from frostline.torch._lean.nodes import Place, hook_of, intact, is_dense, kept, replace, storage_of, visited
from frostline.torch._lean.rules import RULES, Call, Choose, table

KNOWN, MISSING = table(RULES, torch._C._functions, torch._C._autograd.SavedTensor)
"""The rules of this release of PyTorch, and the names that it lacks for others."""

SMALL = 2**15
"""Bytes below which a tensor is left alone: two calls of Python in each step cost more than they are worth."""

DROPPED = Dropped()


def slim(call: Call) -> bool:
    """Makes what the nodes of a call save smaller, in place.

    What can be dropped is dropped at once. A smaller form has bytes of its own, so it is made of what
    nothing else keeps: of a tensor inside of the call, or of an argument that was saved for a use
    which is dropped. Of the results it is too early to tell.

    Args:
        call: a call that has just ended.

    Returns:
        Whether there was something to do, or would have been but for another saver.
    """
    found = Found(call)
    for place in found.drops:
        replace(place, DROPPED)
    for place, choose in found.ripe():
        found.is_useful |= _shrink(place, found.tensors[place], choose, call)
    return found.is_useful


@final
class Found:
    """What there is to do in a call.

    Attributes:
        call: the call.
        drops: the places where nothing need be kept.
        shrinks: the places where less need be kept, and how to choose what.
        tensors: what is kept in these places.
        others: the nodes of which no rule speaks.
        is_useful: whether anything can be dropped, or could be but for another saver.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.drops: list[Place] = []
        self.shrinks: list[tuple[Place, Choose]] = []
        self.tensors: dict[Place, Tensor] = {}
        self.others: list[Node] = []
        self.is_useful = False
        for node in visited(call):
            self._look(node)
        self.is_useful |= bool(self.drops)

    def ripe(self) -> list[tuple[Place, Choose]]:
        """Where less need be kept, and nothing else keeps all, as far as can be told now."""
        if not self.shrinks:
            return []
        dropped = {storage_of(self.tensors[place]) for place in self.drops}
        full = kept(self.others) | self.call.results
        return [
            (place, choose)
            for place, choose in self.shrinks
            if (storage := storage_of(self.tensors[place])) not in full
            and (place[0] not in self.call.bottoms or storage in dropped)
        ]

    def _look(self, node: Any) -> None:
        rule = KNOWN.get(type(node))
        if rule is None or not rule.applies(node, self.call):
            self.others.append(node)
            return
        self.drops += [(node, name) for name in rule.drop if self._is_free((node, name))]
        self.shrinks += [((node, name), how) for name, how in rule.shrink.items() if self._is_free((node, name))]

    def _is_free(self, place: Place) -> bool:
        hook = hook_of(place)
        if hook is not None:
            self.is_useful |= not isinstance(getattr(hook, "__self__", None), Codec)
            return False
        tensor = intact(place)
        if tensor is None or tensor.nbytes < SMALL:
            return False
        self.tensors[place] = tensor
        return True


def _shrink(place: Place, tensor: Tensor, choose: Choose, call: Call) -> bool:
    codec = choose(place[0], tensor, call) if is_dense(tensor) else None
    if codec is not None:
        replace(place, codec)
    return codec is not None
