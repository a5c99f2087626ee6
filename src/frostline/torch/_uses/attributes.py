"""Plain attributes of a layer, which its view has too: numbers, strings, containers, functions, caches of tensors."""

from __future__ import annotations

import collections
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from operator import is_
from typing import Any

import torch
from torch import nn

from frostline.torch._holding.known import is_known
from frostline.torch._uses.structure import REGISTRIES

_NOT_FOLLOWED = REGISTRIES | {
    "training",
    "_non_persistent_buffers_set",
    "_compiled_call_impl",
    "_is_full_backward_hook",
    "_view",
}
_CONTAINERS = (dict, OrderedDict, collections.defaultdict, list, tuple, set, frozenset, collections.deque)
_NOTHING = object()
_OWN = object()


def is_followed(name: str) -> bool:
    """Whether an attribute of a layer is one that its view follows."""
    return name not in _NOT_FOLLOWED and not name.startswith("_frostline") and not name.endswith("_hooks")


class Attributes:
    """The plain attributes of one object of the layer, and those of its counterpart.

    An object that leads to no tensor is the same on both sides, so what is changed in it is seen at
    once. A container is copied, because a call of the view may write into it, and compared before
    each call. What somebody gave the view itself stays; what calls of the view have set lasts until
    a tensor of the layer has changed.
    """

    def __init__(self, layer: Any, view: Any, given: dict[str, Any] | None = None) -> None:
        self.owner = view
        self.is_foreign = not (isinstance(layer, nn.Module) and is_known(layer))
        self.layer, self.view = vars(layer), vars(view)
        self.given: dict[str, Any] = given or {}
        self.names: list[str] = []
        self.values: list[Any] = []
        self.contents: list[tuple[Any, list[Any]]] = []
        self.size = self.view_size = -1
        self.before: dict[str, Any] = {}
        self.own_contents: list[tuple[Any, list[Any]]] = []
        self.set_by_call: dict[str, tuple[Any, Any]] = {}
        self.has_filled = False
        self.tensors: list[torch.Tensor] = []
        self.has_tensors = False

    @property
    def is_current(self) -> bool:
        """Whether the layer has the attributes that it had, and all containers have their contents."""
        return (
            len(self.layer) == self.size
            and all(map(is_, map(self.layer.get, self.names), self.values))
            and all(map(holds, self.contents))
        )

    def follow(self, translated: Callable[[Any], Any]) -> None:
        """Gives the view the attributes that the layer has now."""
        found = {name: value for name, value in self.layer.items() if is_followed(name)}
        for name in [name for name in self.given if name not in found]:
            if self.given.pop(name) is self.view.get(name, _NOTHING):
                del self.view[name]
        for name, value in found.items():
            if self.view.get(name, _NOTHING) is not self.given.get(name, _NOTHING):
                self.given[name] = _OWN  # somebody gave the view another one
                continue
            self.given[name] = self.view[name] = translated(value)
        self.names, self.values = list(found), list(found.values())
        self.contents = _contents(self.values)
        self.tensors = [leaf for value in self.values for leaf in _flat(value) if isinstance(leaf, torch.Tensor)]
        self.has_tensors = bool(self.tensors)
        self.size = len(self.layer)

    def note(self) -> None:
        """Notes what the view has before a call."""
        if self._is_changed():
            self.before = {name: value for name, value in self.view.items() if is_followed(name)}
            self.view_size = len(self.view)
            self.own_contents = _contents(self.before.values())

    def end_call(self) -> bool:
        """Notes what a call of the view has set, and returns whether that is anything since the layer has changed."""
        if self._is_changed():
            now = {name: value for name, value in self.view.items() if is_followed(name)}
            for name in now.keys() | self.before.keys():
                value, before = now.get(name, _NOTHING), self.before.get(name, _NOTHING)
                if value is not before:
                    self.set_by_call[name] = value, self.set_by_call.get(name, (None, before))[1]
        self.has_filled = self.has_filled or not all(map(holds, self.own_contents))
        return bool(self.set_by_call) or self.has_filled

    def forget_calls(self) -> None:
        """Takes away what calls of the view have set: it may have been made of what the layer had then."""
        for name, (value, before) in self.set_by_call.items():
            if self.view.get(name) is value:  # and nobody has given the view another one since
                _put(self.view, name, before)
        if self.set_by_call or self.has_filled:
            self.size = -1
        self.set_by_call, self.has_filled = {}, False

    def _is_changed(self) -> bool:
        same = all(map(is_, map(self.view.get, self.before), self.before.values()))
        return len(self.view) != self.view_size or not same

    def constants(self) -> Iterator[tuple[str, Any]]:
        """Yields the attributes that hold tensors, or could, with constants in place of the tensors."""
        for name in self.names:
            value = self.view.get(name)
            if type(value) in _CONTAINERS or isinstance(value, torch.Tensor):
                yield name, as_constants(value)


def _contents(values: Iterable[Any]) -> list[tuple[Any, list[Any]]]:
    return [(value, list(_flat(value))) for value in values if type(value) in _CONTAINERS]


def _put(attributes: dict[str, Any], name: str, value: Any) -> None:
    if value is _NOTHING:
        attributes.pop(name, None)
    else:
        attributes[name] = value


def holds(container_and_contents: tuple[Any, list[Any]]) -> bool:
    """Whether a container has the contents that it had."""
    container, contents = container_and_contents
    now = list(_flat(container))
    return len(now) == len(contents) and all(map(is_, now, contents))


def as_constants(value: Any) -> Any:
    """Returns the value with a constant in place of each tensor, in containers too."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if type(value) in (dict, OrderedDict):
        return type(value)((k, as_constants(v)) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value)(as_constants(v) for v in value)
    return value


def _flat(value: Any) -> Iterator[Any]:
    """Yields what is in a container and in the containers in it, and the value itself where it is none."""
    if type(value) not in _CONTAINERS:
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _flat(item)
    else:
        for item in value:
            yield from _flat(item)
