"""The tensors that autograd saves for backward, and their bytes."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from frostline.torch._tensors import distinct_bytes, storage_identity, storages


@final
class SavedTensor:
    """A tensor in the graph, or a smaller form of it. It lives exactly as long as the graph holds it.

    Attributes:
        packed: the tensor, or its smaller form.
    """

    __slots__ = ("__weakref__", "_unpack", "packed")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.packed: Any = tensor
        self._unpack: Callable[[Any], torch.Tensor] | None = None

    @property
    def hook(self) -> Callable[[Any], torch.Tensor] | None:
        """The function from the smaller form to the tensor; None if the tensor itself is kept."""
        return self._unpack

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensor, or those in its smaller form."""
        return [leaf for leaf in tree_leaves(self.packed) if isinstance(leaf, torch.Tensor)]

    def replace(self, pack: Callable[[torch.Tensor], Any], unpack: Callable[[Any], torch.Tensor]) -> None:
        """Keeps a smaller form from now on, as ``register_hooks`` of a plain node would."""
        self.packed, self._unpack = pack(self.unpack()), unpack

    def unpack(self) -> torch.Tensor:
        """The tensor, for backward."""
        return self.packed if self._unpack is None else self._unpack(self.packed)


def packed(data: Any) -> Any:
    """The data in a slot of a node, watched or not."""
    return data.packed if isinstance(data, SavedTensor) else data


@final
class SavedTensors:
    """The tensors that the graph holds for backward, among those that were packed while this object watched.

    A tensor that the graph has released (after backward, or with an output that nobody holds) is not among them.
    """

    def __init__(self, model: nn.Module, also: Callable[[nn.Module], Iterable[torch.Tensor]]) -> None:
        # Held, so that no other storage can take over one of these identities.
        held = [*model.parameters(), *model.buffers()]
        self._also = partial(also, model)
        self._own = [storage for tensor in held for storage in storages(tensor)]
        self._kept: list[tuple[int, weakref.ref[SavedTensor]]] = []

    @property
    def own(self) -> frozenset[int]:
        """The identities of storages that do not count."""
        further = [storage for tensor in self._also() for storage in storages(tensor)]
        return frozenset(map(storage_identity, (*self._own, *further)))

    @property
    def held(self) -> list[tuple[int, torch.Tensor]]:
        """All tensors held now, own storages included, each with the sequence number of the node that saved it."""
        living = ((number, reference()) for number, reference in self._kept)
        return [(number, tensor) for number, kept in living if kept is not None for tensor in kept.tensors]

    @property
    def nbytes(self) -> int:
        """Bytes of the distinct storages held now, except those that the model holds itself."""
        return distinct_bytes((tensor for _, tensor in self.held), self.own)

    def pack(self, tensor: torch.Tensor) -> SavedTensor:
        """Returns the object that the graph keeps in place of a tensor."""
        # A result of a node leads back to the node, and would keep it alive for ever.
        kept = SavedTensor(tensor if tensor.grad_fn is None else tensor.detach())
        # A node is made just before it saves.
        self._kept.append((torch.autograd._get_sequence_nr() - 1, weakref.ref(kept)))
        return kept


@contextmanager
def saving(
    model: nn.Module, also: Callable[[nn.Module], Iterable[torch.Tensor]] = lambda _: ()
) -> Iterator[SavedTensors]:
    """Watches the tensors that autograd saves for backward.

    Works for real, fake and meta tensors. No hook sees attributes that a Python ``autograd.Function`` keeps on its
    context, nor tensors of a node that has packing hooks of its own.

    Args:
        model: the storages of its parameters and buffers do not count, by identity.
        also: from the model to further tensors that it holds between steps, such as folded weights.

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
    saved = SavedTensors(model, also)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, SavedTensor.unpack):
        yield saved
