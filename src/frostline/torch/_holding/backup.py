"""Backups of what a call of a frozen module may write, so that what it wrote can be undone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from frostline._core.movement import MovedError, Movement

LARGE = 1 << 14
"""A tensor of more bytes than this is not copied in each call once a call has left it alone."""

Trusted = set[str]
"""The names of large tensors of a module that all calls so far have left alone."""

Place = tuple[dict[str, Any], str]
"""A registry of a module, and the name of a tensor in it."""


def is_stock(module: nn.Module) -> bool:
    """Whether every class of the module is one of PyTorch's or ours."""
    classes = (c for c in type(module).__mro__ if issubclass(c, nn.Module))
    return all(c.__module__.startswith(("torch.nn.", "frostline.torch.")) for c in classes)


def writable_places(module: nn.Module) -> list[Place]:
    """Where a module holds what a call of it may write.

    PyTorch's own modules write statistics in training mode only, and an embedding with `max_norm`
    renormalises its weight. Nothing is known of other modules: observers and codebooks write in
    evaluation mode too, and some modules normalise their weights in training mode.
    """
    registries: list[dict[str, Any]] = []
    if module._buffers and (module.training or not is_stock(module)):
        registries.append(module._buffers)
    if _renormalises(module) or (module._parameters and module.training and not is_stock(module)):
        registries.append(module._parameters)
    return [(registry, name) for registry in registries for name, tensor in registry.items() if tensor is not None]


def _renormalises(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None


class BufferBackup:
    """A tensor that a call may write, and a copy of its values from before the call."""

    __slots__ = ("copy", "name", "registry", "tensor", "version")

    def __init__(self, registry: dict[str, Any], name: str) -> None:
        self.registry, self.name = registry, name
        self.tensor: torch.Tensor = registry[name]
        self.copy = self.tensor.detach().clone()
        self.version = self.tensor._version

    def ends_here(self) -> bool:
        """Whether nothing is left to restore.

        Kernels that update statistics do not advance the version. Nothing else in the call reads
        what they write, so it is undone at once.
        """
        if self.registry.get(self.name) is not self.tensor or self.tensor._version != self.version:
            return False
        if self.tensor.is_floating_point():
            self.restore()
        return True

    def restore(self) -> None:
        """Puts the tensor and its values back, in place.

        ``.data`` does not advance the version, so a graph that saved the tensor earlier stays valid.
        """
        self.registry[self.name] = self.tensor
        self.tensor.data.copy_(self.copy)
        if self.tensor.requires_grad and not self.tensor.is_leaf:  # a value that needs a gradient was written
            self.tensor.detach_()


class UncopiedTensor:
    """A large tensor that earlier calls left alone, and of which there is no copy."""

    __slots__ = ("name", "registry", "tensor", "version")

    def __init__(self, registry: dict[str, Any], name: str) -> None:
        self.registry, self.name = registry, name
        self.tensor: torch.Tensor = registry[name]
        self.version = self.tensor._version

    def put_back(self) -> bool:
        """Puts the tensor back if another one took its place, and returns whether it was written to."""
        self.registry[self.name] = self.tensor
        return self.tensor._version != self.version


class _OutermostCall(threading.local):
    """What this thread has written since its outermost held call began; None outside of one."""

    written: list[BufferBackup] | None = None


_outermost_call = _OutermostCall()


@contextmanager
def writes_undone(module: nn.Module, places: list[Place], trusted: Trusted) -> Iterator[None]:
    """Undoes whatever a call writes into what the module holds.

    The call works on the tensors themselves and not on copies, so that what autograd saves of them
    takes no memory. A module may read what its child has just written, as fake quantisation does, so
    all of it is restored when the outermost such context is left.

    Args:
        module: the module that is called.
        places: its `writable_places`.
        trusted: what need not be copied in each call, such as a mask of a mebibyte. The context adds to it.

    Raises:
        MovedError: the call has written into a trusted tensor.
    """
    is_outermost = _outermost_call.written is None
    written: list[BufferBackup] = [] if _outermost_call.written is None else _outermost_call.written
    _outermost_call.written = written
    backups = [BufferBackup(registry, name) for registry, name in places if name not in trusted]
    uncopied = [UncopiedTensor(registry, name) for registry, name in places if name in trusted]
    try:
        yield
    finally:
        left_alone = [backup for backup in backups if backup.ends_here()]
        written += [backup for backup in backups if backup not in left_alone]
        if is_outermost:
            _outermost_call.written = None
            for backup in reversed(written):
                backup.restore()
        late = [tensor.name for tensor in uncopied if tensor.put_back()]
    if late:
        raise MovedError(tuple(_late_write(module, name) for name in late), len(places))
    trusted.update(b.name for b in left_alone if b.tensor.nbytes > LARGE and not _renormalises(module))


def _late_write(module: nn.Module, name: str) -> Movement:
    kind = "buffer" if name in module._buffers else "parameter"
    return Movement(
        path=name,
        kind=kind,
        difference=f"It is a large {kind} of a frozen {type(module).__name__}.",
        cause="the module wrote into it in this call, and had left it alone in earlier ones",
        fix=f"Keep what it writes in a {kind} of at most {LARGE} bytes; those are restored.",
    )


@contextmanager
def called_on_copies(places: list[Place]) -> Iterator[None]:
    """Puts copies in the places for the time of a call.

    For calls that are traced, where a copy costs nothing unless something writes to it.
    """
    originals = [(registry, name, registry[name]) for registry, name in places]
    for registry, name, tensor in originals:
        registry[name] = tensor.detach().clone()
    try:
        yield
    finally:
        for registry, name, tensor in originals:
            registry[name] = tensor
