"""Making the saved tensors of a call smaller, in the nodes that the call added to autograd's graph."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import Node

from frostline.torch._autograd.codecs import Codec, ShapeOnly
from frostline.torch._autograd.reads import LEAN_KNOWN, Choose, ModuleCall
from frostline.torch._autograd.saved import SavedTensor, packed

SMALL = 2**15
"""Smaller tensors are not changed: two Python calls in each step cost more than they gain."""

PREFIX = "_raw_saved_"

SavedPlace = tuple[Node, str]
"""A node and the name of a tensor that it saves."""


def slim(call: ModuleCall) -> bool:
    """Makes the saved tensors of a call smaller, in place.

    A tensor of which only the shape is read is dropped at once. A smaller form takes bytes of its own, so it replaces
    only a tensor that nothing else keeps: one inside the call, or an argument whose other use is dropped. The results
    of the call may still be read, so they are not replaced yet.

    Args:
        call: a call that has just ended.

    Returns:
        Whether a tensor was made smaller, or would have been without the hooks of another saver.
    """
    found = SavedInCall(call)
    for place in found.drops:
        replace(place, ShapeOnly())
    is_useful = found.is_useful or bool(found.drops)
    for place, choose in found.only_here():
        tensor = found.tensors[place]
        codec = choose(place[0], tensor) if is_dense(tensor) else None
        if codec is not None:
            replace(place, codec)
            is_useful = True
    return is_useful


@final
class SavedInCall:
    """The saved tensors of a call that a smaller form can replace.

    Attributes:
        call: the call.
        drops: the places where the shape is enough.
        shrinks: the places where a smaller form is enough, each with the choice of a codec.
        tensors: the tensors at these places.
        others: the nodes that read a tensor whole.
        is_useful: whether the hooks of another saver are at a place.
    """

    def __init__(self, call: ModuleCall) -> None:
        self.call = call
        self.drops: list[SavedPlace] = []
        self.shrinks: list[tuple[SavedPlace, Choose]] = []
        self.tensors: dict[SavedPlace, Tensor] = {}
        self.others: list[Node] = []
        self.is_useful = False
        for node in nodes_of(call):
            self._add(node)

    def only_here(self) -> list[tuple[SavedPlace, Choose]]:
        """Returns the places to shrink whose tensor nothing else keeps whole, as far as is known."""
        if not self.shrinks:
            return []
        dropped = {storage_of(self.tensors[place]) for place in self.drops}
        whole = saved_whole(self.others) | self.call.results
        return [
            (place, choose)
            for place, choose in self.shrinks
            if (storage := storage_of(self.tensors[place])) not in whole
            and (place[0] not in self.call.bottoms or storage in dropped)
        ]

    def _add(self, node: Any) -> None:
        rule = LEAN_KNOWN.get(type(node))
        if rule is None:
            self.others.append(node)
            return

        def wants(edge: int) -> bool:
            return node.next_functions[edge][0] is not None

        forms = {name: read(node, wants, self.call) for name, read in rule.tensors.items()}
        smaller = [(name, form.bits, form.choose) for name, form in forms.items() if form.choose is not None]
        if not smaller:
            self.others.append(node)
        for name, bits, choose in smaller:
            place = (node, name)
            if not self._can_change(place):
                continue
            if bits == 0:
                self.drops.append(place)
            else:
                self.shrinks.append((place, choose))

    def _can_change(self, place: SavedPlace) -> bool:
        hook = hook_of(place)
        if hook is not None:
            self.is_useful |= not isinstance(getattr(hook, "__self__", None), Codec)
            return False
        tensor = intact(place)
        if tensor is None or tensor.nbytes < SMALL:
            return False
        self.tensors[place] = tensor
        return True


def nodes_of(call: ModuleCall) -> list[Node]:
    """The nodes of a call, including those of its arguments."""
    found = list(call.tops)
    seen = set(found)
    for node in found:  # which grows
        if node in call.bottoms:
            continue
        for below, _ in node.next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                found.append(below)
    return found


def hook_of(place: SavedPlace) -> Any:
    """The function that unpacks the saved tensor; None if the tensor itself is kept."""
    node, name = place
    return _hook(getattr(node, PREFIX + name))


def replace(place: SavedPlace, codec: Codec) -> None:
    """Keeps a smaller form in place of a tensor, which is freed unless something else holds it."""
    node, name = place
    slot = getattr(node, PREFIX + name)
    watched = _watched(slot)
    change = slot.register_hooks if watched is None else watched.replace
    change(codec.pack, codec.unpack)


def intact(place: SavedPlace) -> Tensor | None:
    """Returns the saved tensor if it is plain and has not been written to."""
    node, name = place
    try:
        tensor = getattr(node, f"_saved_{name}")  # this compares versions; register_hooks does not
    except RuntimeError:
        return None
    return tensor if isinstance(tensor, Tensor) and _is_plain(tensor) else None


def saved_whole(nodes: Iterable[Node]) -> set[int]:
    """The storages that nodes save whole."""
    return {
        storage_of(tensor)
        for node in nodes
        for name in names(type(node))
        for slot in slots(node, name)
        if _hook(slot) is None and isinstance(tensor := packed(slot.data), Tensor)
    }


def storage_of(tensor: Tensor) -> int:
    """Returns the identity of a tensor's storage while it lives; a sparse tensor has several, so it uses its own."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def is_dense(tensor: Tensor) -> bool:
    """Whether a new tensor of the same shape gets the same strides."""
    return tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def _watched(slot: Any) -> SavedTensor | None:
    """Returns the object with which hooks that count bytes have replaced a tensor."""
    data = None if slot.unpack_hook is None else slot.data
    return data if isinstance(data, SavedTensor) else None


def _hook(slot: Any) -> Any:
    try:
        watched = _watched(slot)
        return slot.unpack_hook if watched is None else watched.hook
    except RuntimeError as error:  # a hook in C++, which Python cannot inspect
        return error


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter, FakeTensor)  # a memory budget is measured with fake ones
        and tensor.layout == torch.strided
        and (tensor.is_cpu or tensor.is_cuda)  # whose kernels are known to read no more than the rules say
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


@lru_cache(maxsize=512)
def names(kind: type) -> tuple[str, ...]:
    """The names under which a kind of node saves tensors."""
    return tuple(name.removeprefix(PREFIX) for name in dir(kind) if name.startswith(PREFIX))


def slots(node: Node, name: str) -> tuple[Any, ...]:
    """The slots in which a node saves tensors under a name; a list has a slot for each tensor."""
    try:
        found = getattr(node, PREFIX + name)
    except RuntimeError:  # the graph has been freed
        return ()
    return tuple(found) if isinstance(found, tuple | list) else (found,)
