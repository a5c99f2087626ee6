"""Functions that call a layer, made to call its counterpart instead."""

from __future__ import annotations

import functools
import types
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from frostline._core.errors import UnsupportedError


class Rebinding:
    """Translates values that refer to the original into ones that refer to its copy.

    ``copy.deepcopy`` takes a function as it is. A lambda made in ``__init__``, a decorated
    forward or a hook would therefore lead from the copy to the original and train it.
    """

    def __init__(self, counterparts: Mapping[int, Any]) -> None:
        self._counterparts = counterparts
        self._made: dict[int, Any] = {}

    def of(self, value: Any) -> Any:
        """Returns the value itself, or its translation if it leads to the original.

        Raises:
            UnsupportedError: a function is compiled, and calls the original by itself.
        """
        if id(value) in self._counterparts:
            return self._counterparts[id(value)]
        translate = _TRANSLATIONS.get(type(value))
        return value if translate is None else translate(self, value)

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
        return mapping if all(made[key] is mapping[key] for key in mapping) else type(mapping)(made)

    def _sequence(self, sequence: list[Any] | tuple[Any, ...]) -> Any:
        made = [self.of(value) for value in sequence]
        same = all(new is old for new, old in zip(made, sequence, strict=True))
        return sequence if same else type(sequence)(made)

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
    list: Rebinding._sequence,
    tuple: Rebinding._sequence,
    weakref.ReferenceType: Rebinding._reference,
}
