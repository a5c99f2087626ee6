"""Classes of held modules, generated for each class of modules.

While a module is held its class is a subclass of its own class, as PyTorch's parametrizations and FSDP2
make one. Nothing on the instance refers to the instance, so a copy or a clone, however it is made, is a
held module with its own tensors. What the user has set on the instance, such as a ``train`` or a
``forward``, stays there. The class has the name of the original, because libraries save that name.

An instance of such a class without a hold behaves as one of the original class.
"""

from __future__ import annotations

import copyreg
import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

HOLD = "_frostline_hold"
WRITABLE = "_frostline_writable"
WRITABLE_IN_BACKWARD = "_frostline_writable_in_backward"
GENERATED = "_frostline_class"
ORIGINAL = "_frostline_original"
BODY = "_frostline_body"
CALLED = "_frostline_called"


@dataclass(frozen=True, slots=True)
class Hold:
    """What is remembered of a held module, in the module.

    Attributes:
        mode: ``"eval"`` holds the module in evaluation mode, ``"follow"`` in the mode it is told.
        wanted: the mode that it was told last; it takes it up on release.
        before: the one that it was told before that.
        is_told: whether it was told one since it is held.
        checkpoints: whether it computes activations again during backward if its flag says so.
        stays: whether it was in training mode still when its own ``train``, if it has one, had been told to evaluate.
        alone: whether it is held for the sake of its own buffers, whatever trains at or below it.
    """

    mode: str
    wanted: bool
    before: bool | None = None
    is_told: bool = False
    checkpoints: bool = False
    stays: bool = False
    alone: bool = False


def is_held_alone(module: nn.Module) -> bool:
    """Whether a module is held for the sake of its own buffers: its parameters and what is below it may move."""
    hold: Hold | None = module.__dict__.get(HOLD)
    return hold is not None and hold.alone


class Method:
    """A method of a generated class that precedes an attribute of the same name on the instance.

    Setting the attribute writes it to the instance, as it does in the original class; the method
    decides when that one is called.

    Args:
        bound: makes what the lookup returns, from the instance.
        original: the class whose method of this name a lookup on the class returns.
    """

    def __init__(self, name: str, bound: Callable[[Any], Any], original: type) -> None:
        self.name, self.bound, self.original = name, bound, original

    def __get__(self, module: Any, owner: type) -> Any:
        return getattr(self.original, self.name) if module is None else self.bound(module)

    def __set__(self, module: Any, value: Any) -> None:
        module.__dict__[self.name] = value

    def __delete__(self, module: Any) -> None:
        try:
            del module.__dict__[self.name]
        except KeyError:
            raise AttributeError(self.name) from None


Body = Callable[[type[nn.Module], bool], dict[str, Any]]
"""Returns what a generated class has, beyond its original: it is told the original, and whether calls are held."""


@functools.lru_cache(maxsize=512)
def generated(original: Any, *, called: bool, body: Body) -> type[nn.Module]:
    """Returns the class of held modules of one class.

    Args:
        original: the class of the modules.
        called: whether calls of these modules are held calls, too.
        body: what the class has, beyond its original.
    """
    attributes = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        ORIGINAL: original,
        CALLED: called,
        BODY: staticmethod(body),
        "__new__": _new_of(original),
        "__reduce_ex__": _reduce_of(original),
        **body(original, called),
    }
    made = types.new_class(original.__name__, (original,), exec_body=lambda ns: ns.update(attributes))
    setattr(made, GENERATED, made)
    return made


def original_class(module: nn.Module) -> type[nn.Module]:
    """Returns the class that the module has while it is not held."""
    return _original(type(module))


def _original(kind: type) -> type[nn.Module]:
    return getattr(kind, ORIGINAL) if is_generated(kind) else kind


def is_generated(kind: type) -> bool:
    """Whether a class was generated here."""
    return getattr(kind, GENERATED, None) is kind


def take_class(module: nn.Module, *, called: bool, body: Body) -> None:
    """Gives a module the class of held modules, in place."""
    kind = type(module)
    if "parametrizations" in module._modules and is_parametrized(module) and not is_generated(kind):
        # Its class was made for this module alone, and PyTorch removes the topmost class when the
        # parametrization is removed. So ours goes below it.
        (below,) = kind.__bases__
        kind.__bases__ = (generated(_original(below), called=called or _calls(below), body=body),)  # type: ignore[arg-type]
        return
    inside = getattr(kind, GENERATED, None)
    if inside is not None and inside is not kind and (_calls(inside) or not called):
        return  # a wrapper lies over it, as FSDP2's does
    _give(module, generated(original_class(module), called=called or _calls(kind), body=body))  # type: ignore[arg-type]


def give_class_back(module: nn.Module) -> None:
    """Gives a module its own class back, in place.

    Where another library has made a subclass of ours, ours stays, and does nothing.
    """
    _give(module, original_class(module))


def _give(module: nn.Module, kind: type[nn.Module]) -> None:
    # Not through the `__setattr__` of modules, which looks for a parameter in everything that is set.
    if type(module) is not kind:
        object.__setattr__(module, "__class__", kind)


def _calls(kind: type) -> bool:
    return is_generated(kind) and bool(getattr(kind, CALLED))


def _new_of(original: type[nn.Module]) -> Any:
    def new(kind: type, *args: Any, **kwargs: Any) -> Any:
        # A slice of a container is made by `type(self)(...)`, and it is not held. A subclass is somebody else's.
        if is_generated(kind) and (args or kwargs):
            return original(*args, **kwargs)
        make = original.__new__
        return object.__new__(kind) if make is object.__new__ else make(kind, *args, **kwargs)

    return new


def _reduce_of(original: type[nn.Module]) -> Any:
    def reduce(module: nn.Module, protocol: Any) -> Any:
        reduced = original.__reduce_ex__(module, protocol)
        kind = type(module)
        if not is_generated(kind) or not isinstance(reduced, tuple):
            return reduced
        make, arguments, rest = reduced[0], reduced[1], reduced[2:]
        if make is copyreg.__newobj__ and arguments[:1] == (kind,):  # type: ignore[attr-defined]
            return (_made, (original, _calls(kind), getattr(kind, BODY), *arguments[1:]), *rest)
        return (original, arguments, *rest) if make is kind else reduced

    return reduce


def _made(original: type[nn.Module], called: bool, body: Body, *arguments: Any) -> nn.Module:  # noqa: FBT001 - pickle
    made: nn.Module = original.__new__(original, *arguments)
    made.__class__ = generated(original, called=called, body=body)  # type: ignore[arg-type]
    return made
