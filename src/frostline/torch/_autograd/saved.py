"""What autograd keeps for backward, in bytes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from frostline.torch._lean.folding import shadows
from frostline.torch._tensors import distinct_bytes, storage_identity, storages


@final
class Kept:
    """A tensor in the graph, or a smaller form of it; lives exactly as long as the graph holds it.

    Attributes:
        packed: the tensor, or its smaller form.
    """

    __slots__ = ("__weakref__", "_unpack", "packed")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.packed: Any = tensor
        self._unpack: Callable[[Any], torch.Tensor] | None = None

    @property
    def is_itself(self) -> bool:
        """Whether the tensor is kept, and not a smaller form of it."""
        return self._unpack is None

    @property
    def hook(self) -> Callable[[Any], torch.Tensor] | None:
        """What makes the tensor of its smaller form; None if it is kept itself."""
        return self._unpack

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensor, or those in its smaller form."""
        return [leaf for leaf in tree_leaves(self.packed) if isinstance(leaf, torch.Tensor)]

    def replace(self, pack: Callable[[torch.Tensor], Any], unpack: Callable[[Any], torch.Tensor]) -> None:
        """Keeps a smaller form from now on, as ``register_hooks`` would if nobody watched."""
        self.packed, self._unpack = pack(self.unpack()), unpack

    def unpack(self) -> torch.Tensor:
        """The tensor, for backward."""
        return self.packed if self._unpack is None else self._unpack(self.packed)


def packed(data: Any) -> Any:
    """What is kept in a node, whether it is watched or not."""
    return data.packed if isinstance(data, Kept) else data


@final
class Saved:
    """The tensors that the graph holds for backward, of all that was packed while this was watching.

    What the graph has let go (after backward, or with an output that nobody holds) is not among them.
    """

    def __init__(self, model: nn.Module) -> None:
        # Held, so that no other storage can take over the identity of one of them.
        held = [*model.parameters(), *model.buffers()]
        self._model = model
        self._own = [storage for tensor in held for storage in storages(tensor)]
        self._kept: list[tuple[int, weakref.ref[Kept]]] = []

    @property
    def own(self) -> frozenset[int]:
        """The identities of storages that do not count."""
        folded = [storage for tensor in shadows(self._model) for storage in storages(tensor)]
        return frozenset(map(storage_identity, (*self._own, *folded)))

    @property
    def held(self) -> list[tuple[int, torch.Tensor]]:
        """What is held now, own storages included: the sequence number of the node that saved it, and the tensor."""
        living = ((number, reference()) for number, reference in self._kept)
        return [(number, tensor) for number, kept in living if kept is not None for tensor in kept.tensors]

    @property
    def nbytes(self) -> int:
        """Bytes of the distinct storages held now, without what the model holds by itself."""
        return distinct_bytes((tensor for _, tensor in self.held), self.own)

    def pack(self, tensor: torch.Tensor) -> Kept:
        """What the graph keeps in place of a tensor."""
        # What a node has made leads back to it, and would keep it alive for ever.
        kept = Kept(tensor if tensor.grad_fn is None else tensor.detach())
        # A node is made just before it saves.
        self._kept.append((torch.autograd._get_sequence_nr() - 1, weakref.ref(kept)))
        return kept


@contextmanager
def saving(model: nn.Module) -> Iterator[Saved]:
    """Watches what autograd saves for backward.

    Works for real, fake and meta tensors. Two things no hook sees: attributes that a Python ``autograd.Function``
    keeps on its context, and tensors of a node that has packing hooks of its own.

    Args:
        model: the storages of its parameters, buffers and folded weights do not count, by identity.

    Example:
        >>> from frostline.torch._autograd.saved import saving
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> with saving(model) as saved:
        ...     y = model(torch.ones(3, 4))
        >>> saved.nbytes == 4 * (3 * 4 + 3 * 8)  # the input; the output of the ReLU, which two nodes need
        True
        >>> y.sum().backward()
        >>> saved.nbytes
        0
    """
    saved = Saved(model)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, Kept.unpack):
        yield saved
