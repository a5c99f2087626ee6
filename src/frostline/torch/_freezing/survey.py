"""A model read once: its inventory, and the tensors and modules behind the names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from frostline._core.errors import UnsupportedError
from frostline._core.inventory import Inventory
from frostline._core.param import Buffer, Module, Param
from frostline.torch._freezing.keras_models import refuse_keras
from frostline.torch._holding.claims import OWN_BUFFERS, Site, buffer_name
from frostline.torch._holding.classes import original_class
from frostline.torch._tensors import dtype_name
from frostline.torch._uses.use import Frozen
from frostline.torch._wrappers import take_to_rest, unwrapped


@dataclass(frozen=True)
class Survey:
    """A model read once.

    Attributes:
        root: the model without wrappers around it, so that names are those of the bare model.
        inventory: the neutral account of it, for the core.
        parameters: canonical path -> parameter.
        sites: path of a plan -> every (module, local name) where the tensor is registered; a
            module with buffers and no parameters has the local name "".
        buffers: path of a buffer -> the module in which it is registered, and the name of claims on it there.
        modules: path -> module, every path of a shared module included.
        pinned: ``id`` of each module inside a frozen use, the use itself included.
    """

    root: nn.Module
    inventory: Inventory
    parameters: dict[str, nn.Parameter]
    sites: dict[str, tuple[Site, ...]]
    buffers: dict[str, Site]
    modules: dict[str, nn.Module]
    pinned: frozenset[int]

    @property
    def pinned_paths(self) -> frozenset[str]:
        """The paths inside frozen uses."""
        return frozenset(path for path, sites in self.sites.items() if id(sites[0][0]) in self.pinned)

    def free_sites(self, paths: Iterable[str]) -> list[Site]:
        """Returns where the tensors of some paths are registered outside of frozen uses."""
        sites = (site for path in paths for site in self.sites.get(path) or (self.buffers[path],))
        return [site for site in sites if id(site[0]) not in self.pinned]


def survey(model: nn.Module) -> Survey:
    """Reads a model.

    Raises:
        TypeError: `model` is not an ``nn.Module``.
        UnsupportedError: a parameter is lazy and has no shape yet, or the model is one of Keras.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"a model is an nn.Module; this is of type {type(model).__name__}.")
    root = unwrapped(model)
    refuse_keras(root)
    modules = dict(root.named_modules(remove_duplicate=False))
    take_to_rest(modules.values())
    uses = (module for module in modules.values() if isinstance(module, Frozen))
    pinned = frozenset(id(inner) for use in uses for inner in use.modules())
    params, parameters, sites = [], {}, {}
    for names in _names_of_parameters(modules):
        places = [name.rpartition(".") for name in names]
        sites[names[0]] = tuple(dict.fromkeys((modules[owner], local) for owner, _, local in places))
        module, local = sites[names[0]][0]
        tensor = module._parameters[local]
        assert tensor is not None
        parameters[names[0]] = tensor
        params.append(
            Param(
                path=names[0],
                shape=tuple(tensor.shape),
                dtype=dtype_name(tensor.dtype),
                itemsize=tensor.element_size(),
                owners=tuple(dict.fromkeys(c for name in names for c in _enclosing(name, modules))),
                aliases=tuple(names[1:]),
                pinned=id(module) in pinned,
            )
        )
    stateful = {path: is_stateful(module) for path, module in modules.items()}
    sites |= {path: ((modules[path], OWN_BUFFERS),) for path in modules if stateful[path]}
    inventory_modules = tuple(
        Module(
            path=path,
            owner=original_class(module),
            buffer_bytes=sum(b.nbytes for b in module._buffers.values() if b is not None),
            stateful=stateful[path],
            pinned=id(module) in pinned,
            members=_members(module),
        )
        for path, module in modules.items()
    )
    buffer_names = _names_of_buffers(modules)
    buffers = {paths[0]: (module, buffer_name(local)) for (module, local), paths in buffer_names.items()}
    inventory = Inventory(
        params=tuple(params),
        modules=inventory_modules,
        buffers=tuple(_buffer(module, local, paths, pinned) for (module, local), paths in buffer_names.items()),
    )
    return Survey(root, inventory, parameters, sites, buffers, modules, pinned)


def _names_of_parameters(modules: dict[str, nn.Module]) -> list[list[str]]:
    """Returns every name of every parameter, in model order; tied names stand together."""
    names: dict[int, list[str]] = defaultdict(list)
    for path, module in modules.items():
        for local, parameter in module._parameters.items():
            name = f"{path}.{local}" if path else local
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise UnsupportedError(
                    repr(name),
                    "is a lazy parameter that has no shape yet.",
                    "Run one batch through the model first: model(x); then freeze.",
                )
            if parameter is not None:
                names[id(parameter)].append(name)
    return list(names.values())


def _names_of_buffers(modules: dict[str, nn.Module]) -> dict[Site, list[str]]:
    """Returns every name of every buffer, in model order: a shared module has several."""
    names: dict[Site, list[str]] = defaultdict(list)
    for path, module in modules.items():
        for local, buffer in module._buffers.items():
            if buffer is not None:
                names[module, local].append(f"{path}.{local}" if path else local)
    return names


def _buffer(module: nn.Module, local: str, paths: list[str], pinned: frozenset[int]) -> Buffer:
    tensor = module._buffers[local]
    assert tensor is not None
    is_lazy = isinstance(tensor, nn.parameter.UninitializedBuffer)
    shape, nbytes = ((), 0) if is_lazy else (tuple(tensor.shape), tensor.nbytes)
    return Buffer(paths[0], shape, dtype_name(tensor.dtype), nbytes, tuple(paths[1:]), pinned=id(module) in pinned)


def _members(module: nn.Module) -> tuple[str, ...] | None:
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return tuple(module._modules)
    return tuple(map(str, range(len(module)))) if isinstance(module, nn.ParameterList) else None


def is_stateful(module: nn.Module) -> bool:
    """Whether a module has buffers of its own and no parameter at or below it."""
    has_buffers = any(b is not None for b in module._buffers.values())
    return has_buffers and next(module.parameters(), None) is None


def _enclosing(name: str, modules: dict[str, nn.Module]) -> list[type]:
    keys = name.split(".")
    return [original_class(modules[".".join(keys[:depth])]) for depth in range(len(keys))]
