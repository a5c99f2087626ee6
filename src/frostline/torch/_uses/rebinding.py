"""Values that refer to a layer, made to refer to its counterpart instead."""

from __future__ import annotations

import collections
import copy
import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import torch
from torch import nn

from frostline._core.errors import UnsupportedError

_OPAQUE = (torch.Tensor, type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, str, bytes)


_PLAIN = frozenset({bool, int, float, str, bytes, type(None), torch.dtype, torch.device, types.FunctionType})
_REGISTRIES = frozenset({dict, OrderedDict, set})
"""What most attributes of modules are: nothing hangs below the first, and below the others if they are empty."""


def reachable(value: Any, *, through_uses: bool = True) -> Iterator[nn.Module | torch.Tensor]:
    """Yields every module and tensor that hangs below a value, registered or not.

    Args:
        value: a module, or what an attribute holds.
        through_uses: whether to go on to what a frozen use is a use of.
    """
    seen: set[int] = set()
    waiting: list[Any] = [value]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in _PLAIN or (kind in _REGISTRIES and not value) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (nn.Module, torch.Tensor)):
            yield value
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset, collections.deque)):
            waiting.extend(value)
        held = {} if isinstance(value, _OPAQUE) else getattr(value, "__dict__", {})
        if through_uses or "_view" not in held:
            waiting += [item for name, item in held.items() if name != "_frostline_use"]


class Rebinding:
    """Translates values that refer to the original into ones that refer to its copy.

    ``copy.deepcopy`` takes a function as it is. A lambda made in ``__init__``, a decorated
    forward or a hook would therefore lead from the copy to the original and train it.

    Args:
        counterparts: ``id`` of each module -> what replaces it. Objects that are copied are added.
        alias: makes the constant that replaces a tensor. With it containers are copied, and
            objects that lead to a module or a tensor; without it only what leads to a counterpart.
    """

    def __init__(
        self, counterparts: MutableMapping[int, Any], alias: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        self._counterparts = counterparts
        self._alias = alias
        self._made: dict[int, Any] = {}
        self.objects: list[tuple[Any, Any]] = []

    def of(self, value: Any) -> Any:
        """Returns the value itself, or its translation if it leads to the original.

        Raises:
            UnsupportedError: a function is compiled, and calls the original by itself.
        """
        if id(value) in self._counterparts:
            return self._counterparts[id(value)]
        if self._alias is not None and isinstance(value, torch.Tensor):
            return self._alias(value)
        translate = _TRANSLATIONS.get(type(value))
        if translate is not None:
            return translate(self, value)
        if self._alias is None or not hasattr(value, "__dict__") or isinstance(value, _OPAQUE):
            return value
        return value if next(reachable(value, through_uses=False), None) is None else self._object(value)

    def _object(self, value: Any) -> Any:
        try:
            made = object.__new__(type(value))
        except TypeError:  # a subclass of a builtin type
            made = copy.deepcopy(value, dict(self._counterparts))
        else:
            self._counterparts[id(value)] = made
            made.__dict__.update({name: self.of(item) for name, item in vars(value).items()})
        self._counterparts[id(value)] = made
        self.objects.append((value, made))
        return made

    def _method(self, method: types.MethodType) -> Any:
        owner = self.of(method.__self__)
        return method if owner is method.__self__ else types.MethodType(method.__func__, owner)

    def _function(self, function: types.FunctionType) -> Any:
        if id(function) in self._made:
            return self._made[id(function)]
        cells = function.__closure__ or ()
        made = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            tuple(types.CellType() for _ in cells),
        )
        self._made[id(function)] = made  # before its cells, which may lead back to it
        changed = [self._fill(new, old, function, made) for new, old in zip(made.__closure__ or (), cells, strict=True)]
        made.__defaults__ = self.of(function.__defaults__)
        made.__kwdefaults__ = self.of(function.__kwdefaults__)
        changed += [made.__defaults__ is not function.__defaults__, made.__kwdefaults__ is not function.__kwdefaults__]
        if not any(changed):
            self._made[id(function)] = function
            return function
        if hasattr(function, "_torchdynamo_orig_callable"):
            raise UnsupportedError(
                f"Frozen(layer), with a compiled {function.__name__},",
                "cannot be made: compiled code calls the layer itself.",
                "Compile what contains the frozen use: torch.compile(model).",
            )
        made.__dict__.update({name: self.of(value) for name, value in vars(function).items()})
        return made

    def _fill(self, new: types.CellType, old: types.CellType, function: Any, made: Any) -> bool:
        try:
            content = old.cell_contents
        except ValueError:  # not assigned yet
            return False
        new.cell_contents = self.of(content)
        return new.cell_contents is not content and content is not function

    def _partial(self, partial: functools.partial[Any]) -> Any:
        parts = (partial.func, partial.args, partial.keywords)
        func, args, keywords = map(self.of, parts)
        same = all(new is old for new, old in zip((func, args, keywords), parts, strict=True))
        return partial if same else functools.partial(func, *args, **keywords)

    def _mapping(self, mapping: dict[Any, Any]) -> Any:
        made = {key: self.of(value) for key, value in mapping.items()}
        if self._alias is None and all(made[key] is mapping[key] for key in mapping):
            return mapping
        return type(mapping)(made)

    def _sequence(self, sequence: Any) -> Any:
        made = [self.of(value) for value in sequence]
        same = all(new is old for new, old in zip(made, sequence, strict=True))
        return sequence if same and (self._alias is None or isinstance(sequence, tuple)) else type(sequence)(made)

    def _set(self, values: set[Any] | frozenset[Any]) -> Any:
        return type(values)(map(self.of, values))

    def _default_mapping(self, mapping: collections.defaultdict[Any, Any]) -> Any:
        made = self._mapping(dict(mapping))
        return collections.defaultdict(self.of(mapping.default_factory), made)

    def _reference(self, reference: weakref.ReferenceType[Any]) -> Any:
        target = reference()
        counterpart = self._counterparts.get(id(target))
        return reference if target is None or counterpart is None else weakref.ref(counterpart)


_TRANSLATIONS: dict[type, Any] = {
    types.MethodType: Rebinding._method,
    types.FunctionType: Rebinding._function,
    functools.partial: Rebinding._partial,
    dict: Rebinding._mapping,
    OrderedDict: Rebinding._mapping,
    collections.defaultdict: Rebinding._default_mapping,
    list: Rebinding._sequence,
    collections.deque: Rebinding._sequence,
    set: Rebinding._set,
    frozenset: Rebinding._set,
    tuple: Rebinding._sequence,
    weakref.ReferenceType: Rebinding._reference,
}
