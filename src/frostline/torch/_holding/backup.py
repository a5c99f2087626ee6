"""What a call of a held module writes, and how it is undone.

One rule holds for every call. The outermost held call of a thread owns all tensors below its module,
and calls inside it only compute. When it ends, each tensor is what it was when the call began.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from frostline._core.movement import MovedError, Movement
from frostline.torch._holding.classes import WRITABLE, WRITABLE_IN_BACKWARD
from frostline.torch._holding.writable import PROOF, SMALL, Place, Writable, parts

Swap = tuple[dict[str, Any], str, torch.Tensor | None]
"""A registry of a module, a name in it, and a tensor or nothing."""


def _writable(module: nn.Module, key: str = WRITABLE) -> Writable:
    known: Writable | None = module.__dict__.get(key)
    if known is None or not known.is_of(module) or not known.is_current():
        known = _read_again(module, known, key)
    return known


def _read_again(module: nn.Module, known: Writable | None, key: str) -> Writable:
    module.__dict__.setdefault(key, None)  # it is one of the attributes that are counted
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(mode=False):
            module.__dict__[key] = Writable(module, known)
    else:
        module.__dict__[key] = Writable(module, known)
    made: Writable = module.__dict__[key]
    return made


class _Calling(threading.local):
    call: Call | None = None


_thread = _Calling()
_lock = threading.RLock()
_turn = threading.Condition(_lock)
_open: dict[int, list[Call]] = {}
"""The calls that own tensors now, by thread."""
_waiting: set[int] = set()
"""Threads that wait for their turn."""


def _wait() -> None:
    thread = threading.get_ident()
    _waiting.add(thread)
    try:
        _turn.wait()
    finally:
        _waiting.discard(thread)


def is_covered(module: nn.Module) -> bool:
    """Whether a held call of this thread owns the tensors of the module."""
    call, key = _thread.call, id(module)
    while call is not None and key not in call.writable.covered:
        call = call.outer
    return call is not None


def owner_of(module: nn.Module) -> nn.Module:
    """Returns the module of the outermost held call of this thread that owns the tensors of a module."""
    call, owner = _thread.call, module
    while call is not None:
        if id(module) in call.writable.covered:
            owner = call.module
        call = call.outer
    return owner


class Call:
    """A held call that owns what lies below its module.

    An exception may come between any two steps of it, also while it begins and while it ends. So
    each step of ``begin`` is noted before it is done, and ``end`` may be called again: it then does
    what it has not done.

    Args:
        module: the module that is called.
        swaps: returns registries and names, and the tensors that the call is to find there.
        in_backward: whether it runs a hook in backward. Such a call writes other tensors than one of the module, and
            does not wait for one of the very module, because that may wait for its backward.
    """

    writable: Writable
    host: Call | None = None
    guests: set[Call] | None = None
    is_open = is_saved = is_complete = is_restored = is_ended = False
    clones: list[tuple[Place, torch.Tensor]] = []  # noqa: RUF012 - it is replaced, and never changed
    samples: list[tuple[Place, torch.Tensor]] = []  # noqa: RUF012 - as `clones`
    late: tuple[Place, ...] = ()
    versions: list[int] | None = None

    def __init__(
        self, module: nn.Module, swaps: Callable[[], Iterable[Swap]] | None = None, *, in_backward: bool = False
    ) -> None:
        self.module, self.find_swaps = module, swaps
        self.key = WRITABLE_IN_BACKWARD if in_backward else WRITABLE
        self.outer = _thread.call
        self.thread = threading.get_ident()
        self.swaps: list[Swap] = []
        self.lent: dict[int, torch.Tensor] = {}

    def begin(self) -> None:
        """Waits for its turn, and puts copies in the places that the call writes.

        Calls of two threads that may write the same tensor take turns. A thread that calls a part of
        what another thread calls does not wait, because the other call may wait for it.
        """
        with _lock:
            while _open and (other := self._in_the_way()) is not None:
                is_inside = self.module is not other.module or self.key is WRITABLE_IN_BACKWARD
                if is_inside and id(self.module) in other.writable.covered:
                    self.host = other
                    other.guests = (other.guests or set()) | {self}
                    return
                _wait()
            self.writable = now = _writable(self.module, self.key)
            self.is_open = True
            _open.setdefault(self.thread, []).append(self)
            _thread.call = self
        self.versions = now.versions()
        if now.saved:
            torch._foreach_copy_(now.backups, now.values)
            self.is_saved = True
        if now.proving:
            self._copy_what_is_unproven()
        for place in now.lent:
            copy = self.lent[id(place)] = place.copied()
            place.registry[place.name] = copy
        if self.find_swaps is not None:
            for registry, name, tensor in self.find_swaps():
                self.swaps.append((registry, name, registry[name]))
                registry[name] = tensor

    def _copy_what_is_unproven(self) -> None:
        self.clones, self.samples = [], []
        left, saved = PROOF, set(map(id, self.writable.saved))
        for place in self.writable.proving:
            if id(place) not in saved and place.tensor.nbytes <= left:
                left -= place.tensor.nbytes
                self.clones.append((place, place.data.clone()))
            elif id(place) not in saved:
                self.samples.append((place, place.sample()))

    def _in_the_way(self) -> Call | None:
        if len(_open) == 1 and self.thread in _open:
            return None
        others = [call for thread, calls in _open.items() if thread != self.thread for call in calls]
        # Their calls may have copies in the registries now, so nothing is read where they are.
        covered = frozenset(map(id, parts(self.module)))
        for call in others:
            if not covered.isdisjoint(call.writable.covered):
                return call
        addresses = _writable(self.module).addresses
        return next((call for call in others if not addresses.isdisjoint(call.writable.addresses)), None)

    def end(self) -> None:
        """Undoes what the call has written, and lets the others call."""
        while _lock._is_owned():  # type: ignore[attr-defined] # an interrupt has come where a block of it is left
            _lock.release()
        if self.host is not None:
            with _lock:
                self.host.guests = (self.host.guests or set()) - {self}
                _turn.notify_all()
        if not self.is_open:
            self.is_ended = True
            return
        if self.guests:
            with _lock:
                while self.guests:
                    _wait()
        if not self.is_restored:
            self._restore()
            self.is_restored = True
        if self.late or (self.is_complete and self.writable.proving):
            _read_again(self.module, self.writable, self.key)
        _thread.call = self.outer
        with _lock:
            mine = _open.get(self.thread, [])
            if self in mine:
                mine.remove(self)
            if not mine:
                _open.pop(self.thread, None)
            if _waiting:
                _turn.notify_all()
        self.is_open = False
        self.is_ended = True

    def _restore(self) -> None:
        now = self.writable
        for registry, name, tensor in reversed(self.swaps):
            registry[name] = tensor
        if self.lent or not now.is_in_place():
            self._put_back()
        if not now.is_in_storage():
            for place, pointer in zip(now.places, now.pointers, strict=True):
                if place.tensor.data_ptr() != pointer:
                    place.tensor.data = place.data
                    place.written = True
        clones = self.clones if now.proving else []
        if self.is_saved:
            if now.proving:
                self._see_what_was_written()
            torch._foreach_copy_(now.values, now.backups)
        for place, clone in clones:
            if not _same_bytes(clone, place.data):
                place.data.copy_(clone)
                place.written = True
        for place, sample in self.samples:
            if not place.written and not _same_bytes(sample, place.sample()):
                place.written = True
                self.late = (*self.late, place)
        versions = now.versions()
        if self.versions is not None and versions != self.versions:
            restored = {*map(id, now.saved), *(id(place) for place, _ in clones)}
            for place, before, version in zip(now.places, self.versions, versions, strict=True):
                if version != before:
                    self._note_write(place, is_restored=id(place) in restored)
        if self.is_complete:
            for place in now.proving:
                place.written = bool(place.written)

    def _put_back(self) -> None:
        for place in self.writable.places:
            found: torch.Tensor | None = place.registry.get(place.name)
            if found is not place.tensor:
                lent = self.lent.get(id(place))
                if lent is None or found is not lent or not _same_bytes(lent, place.data):
                    place.written = True
                place.registry[place.name] = place.tensor

    def _see_what_was_written(self) -> None:
        for place, backup in zip(self.writable.saved, self.writable.backups, strict=True):
            if not _same_bytes(backup, place.data):
                place.written = True

    def _note_write(self, place: Place, *, is_restored: bool) -> None:
        if place.tensor.grad_fn is not None:  # a value that needs a gradient was written
            place.tensor.detach_()
        place.written = True
        if is_restored:
            # A graph that has saved what was written now says so in backward. No mode of autograd is
            # entered here, because an interrupt could leave it on.
            place.tensor.detach().copy_(place.data)
        elif place not in self.late:
            self.late = (*self.late, place)

    def raise_if_late(self) -> None:
        """Tells of a write into a tensor of which there was no copy.

        Raises:
            MovedError: the call has written into it, and earlier calls had not.
        """
        if self.late:
            kind = type(self.module).__name__
            raise MovedError(tuple(_late_write(kind, place) for place in self.late), len(self.writable.places))


def _same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and (a.is_meta or torch.equal(a.detach(), b))


def _late_write(owner: str, place: Place) -> Movement:
    kind = "parameter" if place.is_parameter else "buffer"
    return Movement(
        path=place.path,
        kind=kind,
        difference=f"It is a large {kind} of a frozen {owner}.",
        cause="the module wrote into it in this call, and no copy of it was made before",
        fix=f"Keep what it writes in a {kind} of at most {SMALL} bytes; those are restored.",
    )


@contextmanager
def called_on_copies(places: Iterable[tuple[dict[str, Any], str]]) -> Iterator[None]:
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
