"""Which storages are alive while a model runs on tensors without data, and how many bytes that would be."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import final

import torch

from frostline.torch._tensors import storages


@final
class Alive:
    """Follows storages from the kernel that made them until nobody holds them: their sum is what memory would show.

    Args:
        given: tensors that are there before; their storages count neither when they are seen again nor when they go.
    """

    def __init__(self, given: Iterable[torch.Tensor]) -> None:
        self.now = self.peak = 0
        self._watched: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._given = [storage for tensor in given for storage in storages(tensor)]  # held, so that ids stay theirs
        self._given_ids = {id(storage) for storage in self._given}
        self._marked: dict[str, set[int]] = {}

    @property
    def given_bytes(self) -> int:
        """Bytes of what was there before."""
        return sum({id(storage): storage.nbytes() for storage in self._given}.values())

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor was there before, or was made by a kernel."""
        return all(id(storage) in self._watched or id(storage) in self._given_ids for storage in storages(tensor))

    def see(self, tensors: Iterable[torch.Tensor]) -> None:
        """Takes up what a kernel has made."""
        for tensor in tensors:
            for storage in storages(tensor):
                if id(storage) not in self._watched and id(storage) not in self._given_ids:
                    self._watch(storage)
        self.peak = max(self.peak, self.now)

    def mark(self, word: str, tensors: Iterable[torch.Tensor]) -> None:
        """Marks the storages of tensors with a word."""
        marked = self._marked.setdefault(word, set())
        marked.update(id(storage) for tensor in tensors for storage in storages(tensor))

    def is_marked(self, word: str, tensor: torch.Tensor) -> bool:
        """Whether a storage of the tensor is marked with a word."""
        marked = self._marked.get(word, ())
        return any(id(storage) in marked for storage in storages(tensor))

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()

        def gone(_: object) -> None:
            self.now -= size
            for marked in self._marked.values():
                marked.discard(key)
            del self._watched[key]

        # The Python object of a storage lives as long as the storage itself.
        self._watched[key] = weakref.ref(storage, gone)
        self.now += size
