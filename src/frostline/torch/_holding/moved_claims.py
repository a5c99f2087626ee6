"""Claims whose parameter went elsewhere by surgery on the model, and where it is now.

A parameter gets another name where it is pruned, normalised or parametrized, and another module where its module is
converted: to synchronised batch norm, to quantisation-aware training, to somebody's wrapper.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from frostline.torch._holding.claims import ATTRIBUTE, SEEN, ClaimStack, Site, buffer_name, enact, ledger_of

_SUFFIXES = (("_orig",), ("_g", "_v"))
"""What pruning and spectral normalisation, and weight normalisation, append to the name of a parameter."""


@dataclass(frozen=True)
class MovedClaims:
    """Claims, and the place to which their parameter went.

    Attributes:
        stack: the claims.
        site: the place.
    """

    stack: ClaimStack
    site: Site


def moved_claims(modules: Collection[nn.Module]) -> list[MovedClaims]:
    """Returns the claims that stand at a place that their parameter has left, with each place where it is now.

    Args:
        modules: all modules of a model.
    """
    ledgers = [(module, ledger) for module in modules if (ledger := ledger_of(module))]
    found = [
        MovedClaims(stack, (inner, name))
        for module, ledger in ledgers
        for local, stack in ledger.items()
        if local not in module._parameters
        for inner, name in _successors(module, local)
        if name not in ledger_of(inner)
    ]
    if not SEEN:
        return found
    known = {id(stack) for _, ledger in ledgers for stack in ledger.values()}
    inside = set(map(id, modules))
    for module in modules:
        ledger = ledger_of(module)
        tensors: Mapping[str, torch.Tensor | None] = module._parameters
        if module._buffers:
            tensors = {**tensors, **{buffer_name(local): buffer for local, buffer in module._buffers.items()}}
        for local, tensor in tensors.items():
            stack: ClaimStack | None = None if tensor is None or local in ledger else SEEN.get(tensor)
            if stack is None or stack.model is None or not stack.claims or id(stack) in known:
                continue
            # Another model that has the same parameter is not where it went.
            if id(stack.model()) in inside:
                found.append(MovedClaims(stack, (module, local)))
    return found


def lost_claims(modules: Iterable[nn.Module]) -> Iterator[tuple[Site, ClaimStack]]:
    """Yields the claims whose parameter is a buffer or a plain tensor now, and no parameter anywhere."""
    for module in modules:
        for local, stack in ledger_of(module).items():
            if local in module._parameters:
                continue
            is_tensor = isinstance(module._buffers.get(local, module.__dict__.get(local)), torch.Tensor)
            if is_tensor and not _successors(module, local):
                yield (module, local), stack


def settle(modules: Collection[nn.Module]) -> None:
    """Lets claims stand where their parameters are now, and enacts them there, in place."""
    for moved in moved_claims(modules):
        module, local = moved.site
        module.__dict__.setdefault(ATTRIBUTE, {})[local] = moved.stack
        enact(module, local)


def note_parametrized(modules: Iterable[nn.Module]) -> None:
    """Lets the claims on what a parametrized tensor is computed from stand under its own name, too, in place.

    When the parametrization is removed its own modules are gone, and the claims on their parameters with them.
    """
    for module in modules:
        for local, originals in _parametrizations(module).items():
            for stack in list(ledger_of(originals).values())[:1]:
                module.__dict__.setdefault(ATTRIBUTE, {}).setdefault(local, stack)


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
