"""A model read once: the tensors and modules behind the names, and its inventory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from frostline._core.errors import UnsupportedError
from frostline._core.inventory import Inventory
from frostline._core.param import Buffer, Module, Param
from frostline.torch._freezing.keras_models import refuse_keras
from frostline.torch._holding.claims import OWN_BUFFERS, Site, buffer_at, buffer_name
from frostline.torch._holding.classes import original_class
from frostline.torch._tensors import dtype_name
from frostline.torch._uses.use import Frozen
from frostline.torch._wrappers import take_to_rest, unwrapped


@dataclass(frozen=True)
class Survey:
    """A model read once.

    Attributes:
        root: the model without wrappers around it, so that names are those of the bare model.
        parameters: canonical path -> parameter.
        aliases: canonical path -> the other names, for parameters and buffers that have some.
        sites: path of a plan -> every (module, local name) where the tensor is registered; a
            module with buffers and no parameters has the local name "".
        buffers: path of a buffer -> the module in which it is registered, and the name of claims on it there.
        modules: path -> module, every path of a shared module included.
        pinned: ``id`` of each module inside a frozen use, the use itself included.
    """

    root: nn.Module
    parameters: dict[str, nn.Parameter]
    aliases: dict[str, list[str]]
    sites: dict[str, tuple[Site, ...]]
    buffers: dict[str, Site]
    modules: dict[str, nn.Module]
    pinned: frozenset[int]

    @cached_property
    def inventory(self) -> Inventory:
        """The neutral account of the model, for the core; most verbs do not need it."""
        return _inventory(self)

    @cached_property
    def pinned_paths(self) -> frozenset[str]:
        """The paths of a plan inside frozen uses."""
        return frozenset(path for path, ((module, _), *_) in self.sites.items() if id(module) in self.pinned)

    def free_sites(self, paths: Iterable[str]) -> list[Site]:
        """Returns the sites of parameters and buffers outside of frozen uses."""
        sites = (site for p in paths for site in (self.sites[p] if p in self.sites else [self.buffers[p]]))
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
    modules: dict[str, nn.Module] = {}
    _walk(root, "", modules)
    take_to_rest(modules.values())
    parameters: dict[str, nn.Parameter] = {}
    aliases: dict[str, list[str]] = {}
    sites: dict[str, tuple[Site, ...]] = {}
    buffers: dict[str, Site] = {}
    stateful: dict[str, tuple[Site, ...]] = {}
    first_names: dict[int, str] = {}
    first_of_buffers: dict[Site, str] = {}
    for path, module in modules.items():
        for local, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = f"{path}.{local}" if path else local
            if type(parameter) is not nn.Parameter and isinstance(parameter, nn.parameter.UninitializedParameter):
                raise UnsupportedError(
                    repr(name),
                    "is a lazy parameter that has no shape yet.",
                    "Run one batch through the model first: model(x); then freeze.",
                )
            first = first_names.setdefault(id(parameter), name)
            if first is name:
                parameters[name], sites[name] = parameter, ((module, local),)
            else:
                aliases.setdefault(first, []).append(name)
                if (module, local) not in sites[first]:
                    sites[first] += ((module, local),)
        for local, buffer in module._buffers.items():
            if buffer is None:
                continue
            name = f"{path}.{local}" if path else local
            first = first_of_buffers.setdefault((module, local), name)
            if first is name:
                buffers[name] = module, buffer_name(local)
            else:
                aliases.setdefault(first, []).append(name)
        if module._buffers and is_stateful(module):
            stateful[path] = ((module, OWN_BUFFERS),)
    # Each use was refreshed by the walk; its own `named_modules` would do it again.
    uses = (module for module in modules.values() if isinstance(module, Frozen))
    pinned = frozenset(id(inner) for use in uses for _, inner in nn.Module.named_modules(use))
    return Survey(root, parameters, aliases, {**sites, **stateful}, buffers, modules, pinned)


def _walk(module: nn.Module, path: str, found: dict[str, nn.Module]) -> None:
    """Finds what ``named_modules(remove_duplicate=False)`` yields, without a generator for each level."""
    if type(module).named_modules is not nn.Module.named_modules:
        found.update(module.named_modules(set(), path, remove_duplicate=False))
        return
    found[path] = module
    above = f"{path}." if path else ""
    for key, child in module._modules.items():
        if child is not None:
            _walk(child, above + key, found)


def _inventory(read: Survey) -> Inventory:
    around: dict[str, tuple[type, ...]] = {}
    modules = []
    one_of_each = {type(module): module for module in read.modules.values()}
    kinds = {kind: original_class(module) for kind, module in one_of_each.items()}
    for path, module in read.modules.items():
        kind = kinds[type(module)]
        above = around[path.rpartition(".")[0]] if path else ()
        around[path] = above if kind in above else (*above, kind)
        modules.append(
            Module(
                path=path,
                owner=kind,
                buffer_bytes=sum(b.nbytes for b in module._buffers.values() if b is not None) if module._buffers else 0,
                stateful=path not in read.parameters and path in read.sites,
                pinned=id(module) in read.pinned,
                members=_members(module),
            )
        )
    params = []
    dtypes = {dtype: dtype_name(dtype) for dtype in {tensor.dtype for tensor in read.parameters.values()}}
    for path, tensor in read.parameters.items():
        aliases = tuple(read.aliases.get(path, ()))
        owners = around[path.rpartition(".")[0]]
        if aliases:
            owners = tuple(dict.fromkeys(c for name in (path, *aliases) for c in around[name.rpartition(".")[0]]))
        params.append(
            Param(
                path=path,
                shape=tuple(tensor.shape),
                dtype=dtypes[tensor.dtype],
                itemsize=tensor.element_size(),
                owners=owners,
                aliases=aliases,
                pinned=id(read.sites[path][0][0]) in read.pinned,
            )
        )
    buffers = tuple(_buffer(read, path, *site) for path, site in read.buffers.items())
    return Inventory(tuple(params), tuple(modules), buffers)


def _buffer(read: Survey, path: str, module: nn.Module, name: str) -> Buffer:
    tensor = buffer_at((module, name))
    assert tensor is not None
    is_lazy = isinstance(tensor, nn.parameter.UninitializedBuffer)
    shape, nbytes = ((), 0) if is_lazy else (tuple(tensor.shape), tensor.nbytes)
    aliases = tuple(read.aliases.get(path, ()))
    return Buffer(path, shape, dtype_name(tensor.dtype), nbytes, aliases, pinned=id(module) in read.pinned)


def _members(module: nn.Module) -> tuple[str, ...] | None:
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        return tuple(module._modules)
    return tuple(map(str, range(len(module)))) if isinstance(module, nn.ParameterList) else None


def is_stateful(module: nn.Module) -> bool:
    """Whether a module has buffers of its own and no parameter at or below it."""
    has_buffers = any(b is not None for b in module._buffers.values())
    return has_buffers and next(module.parameters(), None) is None
