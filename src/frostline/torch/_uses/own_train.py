"""Parts of a layer with a ``train`` of their own, which may merge weights, prepare a cache or keep a stem still."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from frostline._core.errors import UnsupportedError
from frostline.torch._holding.backup import Swap
from frostline.torch._holding.classes import HOLD, original_class
from frostline.torch._holding.writable import parts
from frostline.torch._tensors import addresses, versions
from frostline.torch._uses.attributes import Attributes, is_followed

_MISSING = object()


class OwnTrain:
    """Takes a mode in a view as the layer's own ``train`` would take it, and leaves the layer alone.

    The ``train`` runs on copies of the tensors below it. Calls find what it has written, and at
    rest the view shares all tensors with the layer, so that it saves and loads the layer's. It
    runs again when the layer has changed, because what it made may depend on the tensors.

    Args:
        module: the part of the layer.
        view: its counterpart.
        attributes: the plain attributes of the view below it, by the ``id`` of their object.

    Attributes:
        made: what a call must find in the registries of the view.
    """

    def __init__(self, module: nn.Module, view: nn.Module, attributes: Iterable[Attributes]) -> None:
        self.module, self.view = module, view
        self.attributes = list(attributes)
        self.made: list[Swap] = []
        self.values: list[tuple[Attributes, str, Any]] = []
        self.seen: list[Any] = [module.training]

    @property
    def has_written(self) -> bool:
        """Whether the view differs from the layer in more than modes."""
        return bool(self.made or self.values)

    @property
    def is_current(self) -> bool:
        """Whether what it made is what it would make now."""
        return self._stamp() == self.seen

    def _stamp(self) -> list[Any]:
        if not self.has_written:
            return [self.module.training]
        tensors = [t for _, _, t in _tensors(self.view)]  # at rest they are the layer's, or somebody has swapped them
        return [self.module.training, *map(_place, tensors)]

    def take(self, *, training: bool) -> None:
        """Takes a mode.

        Raises:
            UnsupportedError: the layer's own ``train`` fails on copies.
        """
        holds = [(part, part.__dict__.pop(HOLD)) for part in parts(self.view) if HOLD in part.__dict__]
        shared = list(_tensors(self.view))
        copies = {id(t): _copied(t) for _, _, t in shared}
        before = [(attributes, dict(attributes.view)) for attributes in self.attributes]
        for registry, name, tensor in shared:
            registry[name] = copies[id(tensor)]
        # What is made must not depend on where the use is made.
        devices = {t.device.type for _, _, t in shared}
        device = next(filter(torch.amp.is_autocast_available, devices), "cpu")
        try:
            with torch.no_grad(), torch.autocast(device, enabled=False):
                own = self.view.__dict__.get("train")
                original_class(self.module).train(self.view, training) if own is None else own(training)
        except Exception as error:
            name = type(self.module).__name__
            raise UnsupportedError(
                f"Frozen({name})",
                f"cannot take its mode: train({training}) of {name} fails on a copy: {error}.",
                f"Call layer.train({training}) before Frozen(layer), or freeze the layer itself: freeze(layer).",
            ) from error
        finally:
            for registry, name, tensor in shared:
                copy, now = copies[id(tensor)], registry.get(name)
                if now is not copy or not (copy.is_meta or torch.equal(copy, tensor)):
                    self.made.append((registry, name, now))
                registry[name] = tensor
            for attributes, values in before:
                for name in {*values, *attributes.view}:
                    is_other = attributes.view.get(name, _MISSING) is not values.get(name, _MISSING)
                    if is_other and is_followed(name):
                        self.values.append((attributes, name, values.get(name, _MISSING)))
            for part, hold in holds:
                part.__dict__[HOLD] = hold
        self.seen = self._stamp()

    def give_up(self) -> None:
        """Makes the view what the layer is again, except for modes."""
        for attributes, name, value in self.values:
            if value is _MISSING:
                attributes.view.pop(name, None)
                attributes.given.pop(name, None)
            else:
                attributes.view[name] = attributes.given[name] = value
            attributes.size = -1
        self.made, self.values, self.seen = [], [], [self.module.training]


def _tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    for part in parts(module):
        for registry in (part._parameters, part._buffers):
            yield from ((registry, name, tensor) for name, tensor in registry.items() if tensor is not None)


def _place(tensor: torch.Tensor) -> object:
    try:
        return addresses(tensor), versions(tensor)
    except RuntimeError:  # inside a torch.func transform a tensor has no address
        return id(tensor), -1


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
