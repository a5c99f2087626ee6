"""The nodes that a call has added to autograd's graph, and what they save."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.graph import Node

from frostline.torch._autograd.saved import Kept, packed
from frostline.torch._lean.codecs import Codec
from frostline.torch._lean.rules import Call

PREFIX = "_raw_saved_"

Place = tuple[Node, str]
"""A node and the name of what it saves."""


def visited(call: Call) -> list[Node]:
    """The nodes of a call, the bottom ones included."""
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


def hook_of(place: Place) -> Any:
    """What makes the saved tensor of something else that is kept in its place; None if it is kept itself."""
    node, name = place
    return _hook(getattr(node, PREFIX + name))


def replace(place: Place, codec: Codec) -> None:
    """Keeps a smaller form in place of a tensor, which is freed if nobody else holds it."""
    node, name = place
    slot = getattr(node, PREFIX + name)
    watched = _watched(slot)
    change = slot.register_hooks if watched is None else watched.replace
    change(codec.pack, codec.unpack)


def intact(place: Place) -> Tensor | None:
    """The saved tensor, if it is what it was when it was saved, and a plain one."""
    node, name = place
    try:
        tensor = getattr(node, f"_saved_{name}")  # this compares versions; register_hooks does not
    except RuntimeError:
        return None
    return tensor if isinstance(tensor, Tensor) and _is_plain(tensor) else None


def kept(nodes: Iterable[Node]) -> set[int]:
    """The storages that nodes save in full."""
    return {
        storage_of(tensor)
        for node in nodes
        for name in names(type(node))
        for slot in slots(node, name)
        if _hook(slot) is None and isinstance(tensor := packed(slot.data), Tensor)
    }


def storage_of(tensor: Tensor) -> int:
    """An identity of a tensor's storage, as long as it lives; of a sparse tensor, which has several, its own."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)


def is_dense(tensor: Tensor) -> bool:
    """Whether another tensor of the same shape gets the same strides by itself."""
    return tensor.is_contiguous() or torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def _watched(slot: Any) -> Kept | None:
    """What the hooks of somebody who counts have put in place of a tensor."""
    data = None if slot.unpack_hook is None else slot.data
    return data if isinstance(data, Kept) else None


def _hook(slot: Any) -> Any:
    try:
        watched = _watched(slot)
        return slot.unpack_hook if watched is None else watched.hook
    except RuntimeError as error:  # it is written in C++ and cannot be shown
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
    """What a kind of node calls the tensors that it saves."""
    return tuple(name.removeprefix(PREFIX) for name in dir(kind) if name.startswith(PREFIX))


def slots(node: Node, name: str) -> tuple[Any, ...]:
    """Where a node keeps what it saves under a name; of lists it saves each tensor by itself."""
    try:
        found = getattr(node, PREFIX + name)
    except RuntimeError:  # of a graph that has been freed
        return ()
    return tuple(found) if isinstance(found, tuple | list) else (found,)
