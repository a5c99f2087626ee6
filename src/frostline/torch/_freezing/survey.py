"""What a model consists of: its inventory, and the tensors and modules behind the names."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import nn

from frostline._core.errors import UnsupportedError
from frostline._core.inventory import Inventory, Module, Param
from frostline.torch._holding.claims import OWN_BUFFERS, Site
from frostline.torch._tensors import dtype_name
from frostline.torch._uses.use import Frozen
from frostline.torch._wrappers import unwrapped


@dataclass(frozen=True)
class Survey:
    """A model read once.

    Attributes:
        root: the model without wrappers around it, so that names are those of the bare model.
        inventory: the neutral account of it, for the core.
        parameters: canonical path -> parameter.
        sites: path of a plan -> every (module, local name) where the tensor is registered; a
            module with buffers and no parameters has the local name "".
        modules: path -> module, every path of a shared module included.
        pinned: ``id`` of each module inside a frozen use, the use itself included.
    """

    root: nn.Module
    inventory: Inventory
    parameters: dict[str, nn.Parameter]
    sites: dict[str, tuple[Site, ...]]
    modules: dict[str, nn.Module]
    pinned: frozenset[int]


def survey(model: nn.Module) -> Survey:
    """Reads a model.

    Raises:
        TypeError: `model` is not an ``nn.Module``.
        UnsupportedError: a parameter is lazy and has no shape yet.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is an nn.Module; this is of type {type(model).__name__}.")
    root = unwrapped(model)
    modules = dict(root.named_modules(remove_duplicate=False))
    pinned = frozenset(_pinned(modules.values()))
    places = _places(modules)
    return Survey(
        root=root,
        inventory=Inventory(
            params=tuple(_param(names, modules, pinned) for names in places.values()),
            modules=tuple(_modules(modules, pinned)),
        ),
        parameters={names[0]: _tensor(modules, names[0]) for names in places.values()},
        sites=_sites(places, modules) | _stateful_sites(modules),
        modules=modules,
        pinned=pinned,
    )


def is_trained(tensor: torch.Tensor | None) -> bool:
    """Whether training would move a parameter if it were not frozen: integers it never moves."""
    return tensor is not None and (tensor.is_floating_point() or tensor.is_complex())


def _pinned(modules: object) -> set[int]:
    return {
        id(inner)
        for module in modules  # type: ignore[attr-defined]
        if isinstance(module, Frozen)
        for inner in module.modules()
    }


def _places(modules: dict[str, nn.Module]) -> dict[int, list[str]]:
    """Every name of every parameter, in model order; tied names stand together."""
    places: dict[int, list[str]] = defaultdict(list)
    for path, module in modules.items():
        for local, parameter in module._parameters.items():
            name = f"{path}.{local}" if path else local
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise UnsupportedError(
                    repr(name),
                    "is a lazy parameter that has no shape yet.",
                    "Run one batch through the model first: model(x); then freeze.",
                )
            if parameter is not None and is_trained(parameter):
                places[id(parameter)].append(name)
    return places


def _sites(places: dict[int, list[str]], modules: dict[str, nn.Module]) -> dict[str, tuple[Site, ...]]:
    return {names[0]: tuple(dict.fromkeys((modules[_owner(n)], _local(n)) for n in names)) for names in places.values()}


def _stateful_sites(modules: dict[str, nn.Module]) -> dict[str, tuple[Site, ...]]:
    return {p: ((m, OWN_BUFFERS),) for p, m in modules.items() if is_stateful(m)}


def _param(names: list[str], modules: dict[str, nn.Module], pinned: frozenset[int]) -> Param:
    tensor = _tensor(modules, names[0])
    return Param(
        path=names[0],
        shape=tuple(tensor.shape),
        dtype=dtype_name(tensor.dtype),
        itemsize=tensor.element_size(),
        owners=tuple(dict.fromkeys(c for name in names for c in _enclosing(name, modules))),
        aliases=tuple(names[1:]),
        pinned=id(modules[_owner(names[0])]) in pinned,
    )


def _modules(modules: dict[str, nn.Module], pinned: frozenset[int]) -> list[Module]:
    return [
        Module(
            path=path,
            owner=type(module),
            buffer_bytes=sum(b.nbytes for b in module._buffers.values() if b is not None),
            stateful=is_stateful(module),
            pinned=id(module) in pinned,
        )
        for path, module in modules.items()
    ]


def is_stateful(module: nn.Module) -> bool:
    """Whether a module has buffers of its own and no parameter at or below it."""
    has_buffers = any(b is not None for b in module._buffers.values())
    return has_buffers and not any(is_trained(p) for p in module.parameters())


def _enclosing(name: str, modules: dict[str, nn.Module]) -> list[type]:
    keys = name.split(".")
    return [type(modules[".".join(keys[:depth])]) for depth in range(len(keys))]


def _tensor(modules: dict[str, nn.Module], name: str) -> nn.Parameter:
    tensor = modules[_owner(name)]._parameters[_local(name)]
    assert tensor is not None
    return tensor


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _local(name: str) -> str:
    return name.rpartition(".")[2]
