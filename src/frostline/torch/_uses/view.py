"""The view that a frozen use has of its layer: the same tensors, as constants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from frostline.torch._holding import mode as _mode
from frostline.torch._holding.backup import Swap
from frostline.torch._holding.writable import parts
from frostline.torch._tensors import addresses, versions
from frostline.torch._uses.counterparts import Counterparts, Mode
from frostline.torch._uses.seen import Seen
from frostline.torch._uses.slots import TensorSlot


class View:
    """Keeps the module `top` a constant view of `layer`.

    **How it works**, without the bookkeeping::

        for module in layer.modules():
            copy = object.__new__(type(module))                 # runs no code of the layer
            copy._parameters = {name: alias(p) for name, p in module._parameters.items()}
        ...
        for slot in slots:                                      # before each call
            if slot.layer[slot.name] moved to another storage:
                slot.view[slot.name] = alias(slot.layer[slot.name])

    No flag of the layer is ever toggled, so an activation checkpoint that computes the call
    again during backward finds what the call found.
    """

    def __init__(self, layer: nn.Module, top: nn.Module, mode: Mode) -> None:
        self.layer = layer
        self.top = top
        self.mode = mode
        self._seen: Seen | None = None
        self.uncompiled: Callable[..., Any] | None = None
        self._is_wanted = False
        self._has_set = False
        self._stamp_of_sets: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self._lock = threading.RLock()
        top.__dict__["_view"] = self
        self.counterparts = Counterparts(layer, top, mode)
        self.set_mode(training=layer.training, is_told=False)
        top.register_load_state_dict_post_hook(_give_to_layer)

    def set_mode(self, *, training: bool, is_told: bool = True) -> None:
        """Takes a mode, in place: evaluation mode, or with ``"follow"`` the one that is wanted.

        Args:
            training: the mode that is wanted.
            is_told: whether somebody called ``train``; a new view has the modes of its layer.
        """
        self._seen = None
        self._is_wanted = training
        wanted = training and self.mode == "follow"
        for _, view in self.counterparts.pairs:
            view.__dict__["training"] = wanted
            _mode.want(view, training)
        for view in self.counterparts.opaque:
            view.train(wanted)
        for own in self.counterparts.own_trains:
            own.give_up()
        self.counterparts.follow_attributes()
        for own in self.counterparts.own_trains:
            if own.module.training != wanted or (is_told and wanted):
                own.take(training=wanted)
            elif wanted:
                for inner in parts(own.module):
                    self.counterparts.of[id(inner)].__dict__["training"] = inner.training
        # A compiled call would not renew what a train() of the layer's own has made of its weights.
        has_made = any(own.has_written for own in self.counterparts.own_trains)
        self.uncompiled = torch.compiler.disable(self.top._call) if has_made else None

    @property
    def checkpoints(self) -> bool:
        """Whether a call computes activations again during backward, as the layer would in training mode."""
        wants = self._is_wanted and self.counterparts.checkpoints
        return wants and bool(self.top.gradient_checkpointing) and torch.is_grad_enabled()

    def refresh(self) -> None:
        """Makes the next call compute with what the layer holds now, in place.

        A compiled call reads the layer's tensors by itself: see `swapped`.
        """
        if torch.compiler.is_compiling() or (self._seen is not None and self._seen.is_current()):
            return
        with self._lock:
            self._follow()
            self._seen = Seen(self.counterparts, self.mode)

    def _follow(self) -> None:
        if not self.counterparts.is_current:
            self.counterparts.build()
            self.set_mode(training=self.top.training, is_told=False)
        for slot in (stale := self._stale_slots()):
            slot.follow()
        for hooks in self.counterparts.hooks:
            if not hooks.is_current:
                hooks.follow()
                if hooks.copied is not self.top and hooks.taken:
                    _mode.hold_calls(hooks.copied, self.mode, wanted=self._is_wanted)
        self.counterparts.follow_attributes(moved=bool(stale))
        if not all(own.is_current for own in self.counterparts.own_trains):
            self.set_mode(training=self.top.training, is_told=False)
        # A sweep over the model may have set flags: requires_grad_(True), or modes one by one.
        for slot in self.counterparts.slots:
            if slot.constant is not None and slot.constant.requires_grad:
                slot.constant.requires_grad_(False)
        if self.mode == "eval":
            for _, view in self.counterparts.pairs:
                view.__dict__["training"] = False

    def begin_call(self) -> None:
        """Prepares an eager call. What calls set in the view lasts until a tensor of the layer has changed."""
        self.refresh()
        if self._has_set and self._stamp() != self._stamp_of_sets:
            for attributes in self.counterparts.attributes.values():
                attributes.forget_calls()
            self._has_set, self._seen = False, None
            self.refresh()
        if self._seen is not None and not self._seen.is_view_current():
            self._seen.note_view()  # somebody has given the view an attribute

    def end_call(self) -> None:
        """Notes what an eager call has set in the view."""
        if self._seen is None or not self._seen.is_view_current():
            for attributes in self.counterparts.attributes.values():
                self._has_set = attributes.end_call() or self._has_set
            self._stamp_of_sets = self._stamp() if self._has_set else []
            if self._seen is not None:
                self._seen.note_view()

    def _stamp(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        tensors = [slot.view[slot.name] for slot in self.counterparts.slots]
        return [(addresses(t), versions(t)) for t in tensors if t is not None]

    def _stale_slots(self) -> list[TensorSlot]:
        try:
            return [slot for slot in self.counterparts.slots if not slot.is_current]
        except RuntimeError:  # inside a torch.func transform a tensor has no address
            return self.counterparts.slots

    def swaps(self) -> list[Swap]:
        """Returns what an eager call must find in place of what the view holds.

        ``torch.func`` puts tensors of its own in place of ours, and statistics may move before backward.
        """
        slots = self.counterparts.slots if self._seen is None else self._seen.swappable
        swapped = [slot for slot in slots if slot.is_swapped]
        found = [(slot.view, slot.name, slot.current(slot.view[slot.name]).detach()) for slot in swapped]
        return [*found, *self._made()]

    def _made(self) -> list[Swap]:
        return [swap for own in self.counterparts.own_trains for swap in own.made]

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Keeps gradients from every tensor of the view, in this context; for calls that are traced.

        A compiled call must read the layer's tensors each time, and what it sets in the view may be made of them.
        """
        is_compiled = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        present = [slot for slot in self.counterparts.slots if slot.view[slot.name] is not None]
        slots = [slot for slot in present if is_compiled or slot.is_swapped]
        made = self._made()
        held = [(slot.view, slot.name, slot.view[slot.name]) for slot in slots]
        held += [(registry, name, registry[name]) for registry, name, _ in made]
        attributes = list(self.counterparts.attributes.values()) if is_compiled else []
        plain = [
            (a.owner, name, a.view[name]) for a in attributes if a.is_foreign for name in a.names if name in a.view
        ]
        constants = [(a.owner, name, v) for a in attributes if a.has_tensors or a.contents for name, v in a.constants()]
        for slot in slots:
            slot.view[slot.name] = slot.current(slot.view[slot.name]).detach()
        for registry, name, tensor in made:
            registry[name] = tensor
        for owner, name, value in constants:
            setattr(owner, name, value)
        try:
            yield
        finally:
            for registry, name, tensor in reversed(held):
                registry[name] = tensor
            for owner, name, value in plain:
                if getattr(owner, name) is not value:
                    setattr(owner, name, value)


def _give_to_layer(top: nn.Module, _: Any) -> None:
    # load_state_dict(assign=True) has put new tensors into the view; a plain module that is shared
    # would have them now.
    view: View = top.__dict__["_view"]
    for slot in view.counterparts.slots:
        slot.give()
    view.refresh()
