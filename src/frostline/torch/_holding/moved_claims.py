"""Claims whose parameter went elsewhere by surgery on the model, and where it is now.

A parameter gets another name where it is pruned, normalised or parametrized, and another module where its module is
converted: to synchronised batch norm, to quantisation-aware training, to somebody's wrapper.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from frostline.torch._holding.claims import ATTRIBUTE, ClaimStack, Site, enact, ledger_of

_SUFFIXES = (("_orig",), ("_g", "_v"))
"""What pruning and spectral normalisation, and weight normalisation, append to the name of a parameter."""

_SEEN = WeakIdKeyDictionary()
"""Parameter -> the model in which it was last claimed, by a weak reference, and its `ClaimStack`."""


@dataclass(frozen=True)
class MovedClaims:
    """Claims, and the place to which their parameter went.

    Attributes:
        stack: the claims.
        site: the place.
    """

    stack: ClaimStack
    site: Site


def moved_claims(root: nn.Module) -> list[MovedClaims]:
    """Returns the claims that stand at a place that their parameter has left, with each place where it is now."""
    modules = list(root.modules())
    known = {id(stack) for module in modules for stack in ledger_of(module).values()}
    found = [
        MovedClaims(stack, (inner, name))
        for module in modules
        for local, stack in ledger_of(module).items()
        for inner, name in _successors(module, local)
        if name not in ledger_of(inner)
    ]
    inside = set(map(id, modules))
    for module in modules:
        for local, parameter in module._parameters.items():
            if parameter is None or local in ledger_of(module) or parameter not in _SEEN:
                continue
            model, stack = _SEEN[parameter]
            # Another model that has the same parameter is not where it went.
            if stack.claims and id(stack) not in known and id(model()) in inside:
                found.append(MovedClaims(stack, (module, local)))
    return found


def lost_claims(root: nn.Module) -> Iterator[tuple[Site, ClaimStack]]:
    """Yields the claims whose parameter is a buffer or a plain tensor now, and no parameter anywhere."""
    for module in root.modules():
        for local, stack in ledger_of(module).items():
            is_tensor = isinstance(module._buffers.get(local, module.__dict__.get(local)), torch.Tensor)
            if is_tensor and local not in module._parameters and not _successors(module, local):
                yield (module, local), stack


def settle(root: nn.Module) -> None:
    """Lets claims stand where their parameters are now, and enacts them there, in place."""
    for moved in moved_claims(root):
        module, local = moved.site
        module.__dict__.setdefault(ATTRIBUTE, {})[local] = moved.stack
        enact(module, local)
    for module in root.modules():
        for local, stack in _named_by_user(module):
            module.__dict__.setdefault(ATTRIBUTE, {}).setdefault(local, stack)
        for local, stack in ledger_of(module).items():
            # For those that surgery will take to another module.
            if (parameter := module._parameters.get(local)) is not None:
                _SEEN[parameter] = (weakref.ref(root), stack)


def _named_by_user(module: nn.Module) -> Iterator[tuple[str, ClaimStack]]:
    """Yields the parametrized tensors of a module with the claims on what they are computed from.

    When a parametrization is removed, its own modules are gone, and the claims on their parameters with them.
    """
    for local, originals in _parametrizations(module).items():
        stacks = list(ledger_of(originals).values())
        if stacks:
            yield local, stacks[0]


def _successors(module: nn.Module, local: str) -> list[Site]:
    """Returns where a parameter is that a module has no longer under its name."""
    present = module._parameters
    if not local or local in present:
        return []
    if (originals := _parametrizations(module).get(local)) is not None:
        return [(originals, name) for name, tensor in originals._parameters.items() if tensor is not None]
    for suffixes in _SUFFIXES:
        names = [local + suffix for suffix in suffixes]
        if all(name in present for name in names):
            return [(module, name) for name in names]
        bases = [local.removesuffix(suffix) for suffix in suffixes if local.endswith(suffix)]
        if bases and bases[0] in present:
            return [(module, bases[0])]
    return []


def _parametrizations(module: nn.Module) -> dict[str, nn.Module]:
    inner = module._modules.get("parametrizations")
    return {} if inner is None else {name: part for name, part in inner._modules.items() if part is not None}
