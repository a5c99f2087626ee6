"""The tensors at and below a module that a call of it may write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter, is_, itemgetter
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from frostline.torch._holding.classes import HOLD, WRITABLE, is_held_alone
from frostline.torch._holding.known import HOOKS, is_known, is_stock
from frostline.torch._wrappers import is_fully_sharded

SMALL = 1 << 14
"""A buffer of at most so many bytes is copied before each call that may write it."""

PROOF = 1 << 22
"""Of larger tensors so many bytes are copied before the first call, to see what it writes."""

SAMPLE = 1 << 10
"""Of what is larger still about so many values are compared."""

_REGISTRIES = ("_modules", "_parameters", "_buffers", *HOOKS)
_pointers = torch.Tensor.data_ptr
_versions = attrgetter("_version")
_training = itemgetter("training")


def named_parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields a module and all modules below it, each once, with their paths; it calls no method of them."""
    seen: set[int] = set()
    waiting = [("", module)]
    while waiting:
        path, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield path, part
        children = [(f"{path}.{n}" if path else n, c) for n, c in part._modules.items() if c is not None]
        waiting.extend(reversed(children))


def apart(dicts: Iterable[dict[Any, Any]]) -> tuple[list[dict[Any, Any]], list[dict[Any, Any]]]:
    """Returns those that are empty, and the others."""
    found = list(dicts)
    return [each for each in found if not each], [each for each in found if each]


def parts(module: nn.Module) -> Iterator[nn.Module]:
    """Yields a module and all modules below it, each once."""
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if part._modules:
            waiting.extend(child for child in reversed(part._modules.values()) if child is not None)


def renormalises(module: nn.Module) -> bool:
    """Whether a call of the module renormalises its weight."""
    return isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None


class Place:
    """A tensor that a call may write, in its registry.

    Attributes:
        path: its name below the module that is called.
        written: whether calls write it; None before the first call.
        is_own: whether it is a small buffer of the very module of which nothing is known.
        data: its values, without its version counter: what is restored through it does not
            invalidate a graph that has saved the tensor.
    """

    __slots__ = ("data", "is_own", "is_parameter", "name", "path", "registry", "tensor", "written")

    def __init__(
        self, owner: nn.Module, registry: dict[str, Any], name: str, path: str, *, written: bool | None
    ) -> None:
        self.registry, self.name, self.path = registry, name, path
        self.tensor: torch.Tensor = registry[name]
        self.is_parameter = isinstance(self.tensor, nn.Parameter)
        self.written = written
        self.is_own = self.is_small and not self.is_parameter and not is_known(owner)
        self.data = self.tensor.data

    @property
    def is_small(self) -> bool:
        """Whether the tensor is copied before each call, if calls may write it."""
        return self.tensor.nbytes <= SMALL

    def sample(self) -> torch.Tensor:
        """Returns a copy of some of the values, evenly spread: what writes a tensor seldom leaves all of them alone."""
        side = max(1, round(SAMPLE ** (1 / max(1, self.data.dim()))))
        return self.data[tuple(slice(None, None, max(1, size // side)) for size in self.data.shape)].clone()

    def copied(self) -> torch.Tensor:
        """Returns a copy that can take the tensor's place."""
        copy = self.data.clone()
        return nn.Parameter(copy, requires_grad=False) if self.is_parameter else copy


class Writable:
    """What calls of one module may write, at and below it.

    PyTorch's own modules write statistics in training mode, and an embedding with a `max_norm`
    writes its weight. Nothing is known of other modules, of hooks and of forwards that are set on
    an instance: they may write all that lies below their module, as observers, codebooks, memory
    banks and momentum encoders do.

    Attributes:
        covered: ``id`` of each module at or below the module.
        places: the tensors that may be written.
        addresses: where their values lie; calls in two threads that share one take turns.
        proving: those of which it is not known yet whether calls write them.
        lent: those in whose place a call gets a copy: all that are written, and before the first
            call the small buffers of modules of which nothing is known. Autograd may keep the copy,
            and the tensor stays as it is.
        written_parameters: those that calls have written, which calls that are compiled later must leave alone.
        saved: the small ones that are copied before each call and restored after it, because a
            call may reach them by another way than the registry. Of the others a call must not
            change the version.
    """

    def __init__(self, module: nn.Module, before: Writable | None = None) -> None:
        inner = [part for _, part in _owned(module)]
        self.covered = frozenset(map(id, inner))
        self._attributes = [part.__dict__ for part in inner]
        registries = [attributes[name] for attributes in self._attributes for name in _REGISTRIES]
        # Most registries are empty, and whether all of them still are costs less than their lengths.
        self._empty, self._filled = apart([*self._attributes, *registries])
        self._sizes = list(map(len, self._filled))
        self._modes = list(map(_training, self._attributes))
        self.places = list(_places(module))
        if before is not None:
            known = {id(p.tensor): p.written for p in before.places if p.written or self._modes == before._modes}
            for place in self.places:
                place.written = place.written or known.get(id(place.tensor))
        self.tensors = [place.tensor for place in self.places]
        self._registries = list({id(place.registry): place.registry for place in self.places}.values())
        self._held = list(chain.from_iterable(map(dict.values, self._registries)))
        self._all_registries = [*self._registries, *filter(None, (part._modules for part in inner))]
        self._all_held = list(chain.from_iterable(map(dict.values, self._all_registries)))
        self.pointers = list(map(_pointers, self.tensors))
        self.addresses = frozenset(self.pointers) - {0}
        self.proving = [p for p in self.places if p.written is None]
        self.lent = [place for place in self.places if place.written or (place.written is None and place.is_own)]
        self.written_parameters = [(p.registry, p.name) for p in self.places if p.written and p.is_parameter]
        self.saved = [p for p in self.places if p.is_small and (p.written is not False or not p.is_parameter)]
        self.values = [place.data for place in self.saved]
        pairs = () if before is None else zip(before.saved, before.backups, strict=True)
        kept: dict[int, torch.Tensor] = {id(place.tensor): backup for place, backup in pairs}
        self.backups: list[torch.Tensor] = [
            backup if (backup := kept.get(id(place.tensor))) is not None else torch.empty_like(place.data)
            for place in self.saved
        ]

    def is_of(self, module: nn.Module) -> bool:
        """Whether this is what calls of the module may write: a shallow copy of it has the same attribute."""
        return self._attributes[0] is module.__dict__

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> Any:
        return type(None), ()

    def is_current(self) -> bool:
        """Whether the module is built as it was, with the same tensors in the same storages."""
        return (
            not any(self._empty)
            and list(map(len, self._filled)) == self._sizes
            and list(map(_training, self._attributes)) == self._modes
            and all(map(is_, chain.from_iterable(map(dict.values, self._all_registries)), self._all_held))
            and self.is_in_storage()
        )

    def is_in_place(self) -> bool:
        """Whether each registry holds the tensors that it held."""
        return all(map(is_, chain.from_iterable(map(dict.values, self._registries)), self._held))

    def is_in_storage(self) -> bool:
        """Whether each tensor lies where it lay."""
        return list(map(_pointers, self.tensors)) == self.pointers

    def versions(self) -> list[int]:
        """Returns the version of each tensor; those made in inference mode have none."""
        try:
            return list(map(_versions, self.tensors))
        except RuntimeError:
            return [0 if tensor.is_inference() else tensor._version for tensor in self.tensors]


def _places(module: nn.Module) -> Iterator[Place]:
    """Yields what a call may write; a part below a held module in which something trains may move."""
    reached = _reached_by_unknown_code(module)
    top_is_held = HOLD in module.__dict__
    # A sharding library exchanges parameters in each call, and its own have no address.
    is_sharded = any(map(is_fully_sharded, parts(module)))
    seen: set[tuple[int, str]] = set()
    for prefix, inner in _owned(module):
        if top_is_held and HOLD not in inner.__dict__ and _trains(inner):
            continue
        registries: list[tuple[dict[str, Any], list[str]]]
        if id(inner) in reached:
            registries = [(inner._buffers, list(inner._buffers)), (inner._parameters, list(inner._parameters))]
        else:
            registries = [(inner._buffers, list(inner._buffers) if inner.training else [])]
        if renormalises(inner):
            registries.append((inner._parameters, ["weight"]))
        for registry, names in registries[:1] if is_sharded or is_held_alone(module) else registries:
            for name in names:
                if not _is_plain(registry[name]) or (id(registry), name) in seen:
                    continue
                seen.add((id(registry), name))
                is_certain = (
                    renormalises(inner) if registry is inner._parameters else inner.training and is_stock(inner)
                )
                yield Place(
                    inner, registry, name, f"{prefix}.{name}" if prefix else name, written=True if is_certain else None
                )


def _owned(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules whose tensors a held call owns, with their paths."""
    return iter([("", module)]) if is_held_alone(module) else named_parts(module)


def _is_plain(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and not is_traceable_wrapper_subclass(tensor)


def _trains(module: nn.Module) -> bool:
    return any(p.requires_grad for part in parts(module) for p in part._parameters.values() if p is not None)


def _reached_by_unknown_code(module: nn.Module) -> set[int]:
    """Returns the ``id`` of each module at or below one of which it is not known what it writes."""
    reached: set[int] = set()
    waiting = [(module, False)]
    visited: set[tuple[int, bool]] = set()
    while waiting:
        inner, below = waiting.pop()
        below = below or not is_known(inner)
        if (id(inner), below) in visited:
            continue
        visited.add((id(inner), below))
        if below:
            reached.add(id(inner))
        waiting.extend((child, below) for child in inner._modules.values() if child is not None)
    return reached


def writable_in_a_trace(module: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Returns what a traced call of a module may write: its buffers, those of its children, and its own weights.

    In a trace a copy costs nothing unless something writes to it. Of the weights of its children it
    returns those that earlier calls have written.
    """
    known = is_known(module)
    places: list[tuple[dict[str, Any], str]] = []
    for inner in [module] if known or is_held_alone(module) else parts(module):
        for name, tensor in inner._buffers.items():
            # What has no data is copied only where an eager call may copy it, because the copy counts as saved.
            reached = not known and not isinstance(tensor, FakeTensor)
            if tensor is not None and (reached or inner.training or not is_known(inner)):
                places.append((inner._buffers, name))
    if is_held_alone(module):
        return places
    if renormalises(module):
        places.append((module._parameters, "weight"))
    elif not known and module.training:
        places += [(module._parameters, name) for name, tensor in module._parameters.items() if tensor is not None]
    earlier: Writable | None = module.__dict__.get(WRITABLE)
    return places if earlier is None else [*places, *earlier.written_parameters]
