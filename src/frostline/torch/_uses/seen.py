"""What a frozen use found when it last followed its layer, compared before each call in a few steps."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter, is_
from typing import Any, Literal

import torch

from frostline.torch._holding.writable import apart
from frostline.torch._uses.attributes import holds
from frostline.torch._uses.counterparts import Counterparts
from frostline.torch._uses.hooks import HOOKS

_requires_grad = attrgetter("requires_grad")


class Seen:
    """A layer and its view as they were. Each comparison is one pass over all modules or tensors.

    Attributes:
        swappable: the registered tensors in whose place a call may need another one.
    """

    def __init__(self, counterparts: Counterparts, mode: Literal["eval", "follow"]) -> None:
        layers, views = [vars(m) for m, _ in counterparts.pairs], [vars(v) for _, v in counterparts.pairs]
        self.own_trains = counterparts.own_trains
        self.hooks = [slot for slot in counterparts.hooks if slot.taken]
        containers = [layer["_modules"] for layer in layers]
        tensors = [layer[name] for layer in (*layers, *views) for name in ("_parameters", "_buffers")]
        hooks = [layer[name] for layer in layers for name in HOOKS if name in layer]
        attributes = list(counterparts.attributes.values())
        # Most registries are empty, and whether all of them still are costs less than their lengths.
        self.empty, self.filled = apart([*(each.layer for each in attributes), *containers, *tensors, *hooks])
        self.sizes = list(map(len, self.filled))
        self.registries = list(filter(None, [*containers, *tensors]))
        self.registered = list(chain.from_iterable(map(dict.values, self.registries)))
        slots = [s for s in counterparts.slots if s.seen is not None and s.view.get(s.name) is s.constant]
        self.tensors: list[Any] = [slot.seen for slot in slots]
        self.constants: list[Any] = [slot.constant for slot in slots]
        self.loose = counterparts.loose
        self.swappable = [
            slot
            for slot in counterparts.slots
            if slot.norm is not None or slot.view.get(slot.name) is not slot.constant or slot.is_shard
        ]
        modes = views if mode == "eval" else []
        self.places = [*modes, *(each.layer for each in attributes for _ in each.names)]
        self.names = [*("training" for _ in modes), *(name for each in attributes for name in each.names)]
        self.values = [*(False for _ in modes), *(value for each in attributes for value in each.values)]
        self.contents = [pair for each in attributes for pair in each.contents]
        self.attributes = attributes
        self.note_view()

    def note_view(self) -> None:
        """Notes the attributes that the view has now."""
        attributes = self.attributes
        for each in attributes:
            each.note()
        self.view_dicts = [each.view for each in attributes]
        self.view_sizes = list(map(len, self.view_dicts))
        self.view_places = [each.view for each in attributes for _ in each.before]
        self.view_names = [name for each in attributes for name in each.before]
        self.view_values = [value for each in attributes for value in each.before.values()]
        self.view_contents = [pair for each in attributes for pair in each.own_contents]

    def is_current(self) -> bool:
        """Whether layer and view are as they were."""
        try:
            return (
                not any(self.empty)
                and list(map(len, self.filled)) == self.sizes
                and all(map(is_, chain.from_iterable(map(dict.values, self.registries)), self.registered))
                and all(map(torch.Tensor.is_set_to, self.tensors, self.constants))
                and not any(map(_requires_grad, self.constants))
                and all(map(is_, map(dict.get, self.places, self.names), self.values))
                and (not self.contents or all(map(holds, self.contents)))
                and (not self.loose or all(tensor.is_set_to(constant) for tensor, constant in self.loose))
                and (not self.hooks or all(hooks.is_current for hooks in self.hooks))
                and (not self.own_trains or all(own.is_current for own in self.own_trains))
            )
        except (RuntimeError, NotImplementedError):  # tensors that wrap others, and those inside a transform
            return False

    def is_view_current(self) -> bool:
        """Whether the view has the attributes that it had before the call."""
        return (
            list(map(len, self.view_dicts)) == self.view_sizes
            and all(map(is_, map(dict.get, self.view_places, self.view_names), self.view_values))
            and (not self.view_contents or all(map(holds, self.view_contents)))
        )
