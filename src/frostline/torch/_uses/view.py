"""The view that a frozen use has of its layer: the same tensors, as constants."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from frostline.torch._holding import claims as _claims
from frostline.torch._holding import forward as _forward
from frostline.torch._holding import mode as _mode
from frostline.torch._holding.backup import Trusted
from frostline.torch._holding.calls import needs_held_calls
from frostline.torch._uses.hooks import hook_slots
from frostline.torch._uses.slots import AttributeSlot, TensorSlot, as_constants, attribute_slots, tensor_slots
from frostline.torch._uses.structure import copy_structure

Mode = Literal["eval", "follow"]


class View:
    """Keeps the module `top` a constant view of `layer`.

    **How it works**, without the bookkeeping::

        memo = {id(t): alias(t) for t in every_tensor_of(layer)}
        top.__dict__.update(copy.deepcopy(vars(layer), memo))   # structure, never data
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
        self.trusted: Trusted = set()
        self.build(training=layer.training)

    def build(self, *, training: bool) -> None:
        """Copies the structure of the layer into `top` again, in place."""
        self.top.__dict__.clear()
        pairs = copy_structure(self.layer, self.top)
        self.top.__dict__["_view"] = self
        self.pairs = [pair for pair in pairs if "_view" not in vars(pair[0])]  # other uses keep themselves
        self.children = [(m._modules, name, m._modules[name]) for m, _ in pairs for name in m._modules]
        self.slots: list[TensorSlot] = [slot for pair in self.pairs for slot in tensor_slots(*pair)]
        self.attributes: list[AttributeSlot] = [slot for pair in self.pairs for slot in attribute_slots(*pair)]
        self.hooks = hook_slots(self.pairs)
        # If the layer is held, that was copied along; the view has a mode of its own.
        for _, module in self.pairs:
            _mode.forget(module)
            _claims.forget(module)
        type(self.layer).train(self.top, training and self.mode == "follow")
        for _, module in self.pairs:
            if module is not self.top and needs_held_calls(module, self.mode):
                _forward.install(module)
        self.top.register_load_state_dict_post_hook(_give_to_layer)

    def refresh(self) -> None:
        """Makes the next call compute with what the layer holds now, in place.

        A compiled call reads the layer's tensors by itself: see `constants`.
        """
        if torch.compiler.is_compiling():
            return
        if not self._has_the_layers_structure():
            self.build(training=self.top.training)
        for slot in self._stale_slots():
            slot.follow()
        for hooks in self.hooks:
            if not hooks.is_current:
                hooks.follow()
        if self.attributes:
            pairs = [(s.seen, s.constant) for s in self.slots]
            constants = {id(t): (t, c) for t, c in pairs if t is not None and c is not None}
            for attribute in self.attributes:
                attribute.follow(constants)
        # A sweep over the model may have set flags: requires_grad_(True), or modes one by one.
        for slot in self.slots:
            if slot.constant is not None and slot.constant.requires_grad:
                slot.constant.requires_grad_(False)
        if self.mode == "eval":
            for _, module in self.pairs:
                if module.training:
                    module.training = False

    def _has_the_layers_structure(self) -> bool:
        return all(registry.get(name) is child for registry, name, child in self.children) and all(
            len(original._modules) == len(copied._modules)
            and len(original._parameters) == len(copied._parameters)
            and len(original._buffers) == len(copied._buffers)
            for original, copied in self.pairs
        )

    def _stale_slots(self) -> list[TensorSlot]:
        try:
            return [slot for slot in self.slots if not slot.is_current]
        except RuntimeError:  # inside a torch.func transform a tensor has no address
            return self.slots

    @contextmanager
    def constants(self) -> Iterator[None]:
        """Keeps gradients from every tensor of the view, in this context.

        In eager mode none gets there anyway, and nothing is swapped. ``torch.func`` puts tensors of
        its own in place of ours, and a compiled call must read the layer's tensors each time.
        """
        slots, attributes = self._to_swap()
        held = [slot.view[slot.name] for slot in slots]
        values = [getattr(attribute.view, attribute.name) for attribute in attributes]
        for slot in slots:
            slot.view[slot.name] = slot.current(slot.view[slot.name]).detach()
        for attribute in attributes:
            setattr(attribute.view, attribute.name, as_constants(getattr(attribute.view, attribute.name), {}))
        try:
            yield
        finally:
            for slot, tensor in zip(slots, held, strict=True):
                slot.view[slot.name] = tensor
            for attribute, value in zip(attributes, values, strict=True):
                setattr(attribute.view, attribute.name, value)

    def _to_swap(self) -> tuple[list[TensorSlot], list[AttributeSlot]]:
        if torch.compiler.is_exporting() or not torch.compiler.is_compiling():
            return [slot for slot in self.slots if slot.is_swapped], []
        held = [slot for slot in self.slots if slot.view[slot.name] is not None]
        return held, [attribute for attribute in self.attributes if attribute.name in vars(attribute.view)]


def _give_to_layer(top: nn.Module, _: Any) -> None:
    # load_state_dict(assign=True) has put new tensors into the view; a plain module that is shared
    # would have them now.
    view: View = top.__dict__["_view"]
    for slot in view.slots:
        slot.give()
    view.refresh()
