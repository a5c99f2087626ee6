"""Ways to train with a part frozen: by hand, lean, and as others do it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.util import find_spec
from itertools import chain

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import frostline.torch as ft
from benchmarks.in_lean.parts import Part

BASE, AGAIN = "by hand", "by hand again"


def by_hand(model: nn.Module, part: Part) -> nn.Module:
    """What everybody writes."""
    for path in ft.freeze(copy.deepcopy(model), *part.frozen).plan.frozen:
        model.get_parameter(path).requires_grad_(False)
    for module in model.modules():
        module.training &= any(p.requires_grad for p in module.parameters())
    return model


def lean(model: nn.Module, part: Part) -> nn.Module:
    """Exact."""
    ft.freeze(model, *part.frozen)
    ft.lean(model)
    return model


def folded(model: nn.Module, part: Part) -> nn.Module:
    """With the norms folded into the convolutions."""
    ft.freeze(model, *part.frozen)
    ft.lean(model, exact=False)
    return model


def budgeted(model: nn.Module, part: Part) -> nn.Module:
    """Exact, with frozen blocks that are computed again."""
    ft.freeze(model, *part.frozen)
    ft.lean(model, memory_budget=part.budget)
    return model


def checkpointed(model: nn.Module, part: Part) -> nn.Module:
    """By hand, and every block is computed again, frozen or not."""
    by_hand(model, part)
    for module in blocks(model):
        module.forward = again(module.forward)  # type: ignore[method-assign]
    return model


def again(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The same forward, computed once more in the backward pass."""
    return lambda *args: checkpoint(forward, *args, use_reentrant=False)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The layers of each sequence of layers: residual blocks, inverted residuals, transformer layers."""
    sequences = [module for module in model.children() if isinstance(module, nn.Sequential | nn.ModuleList)]
    layers = chain.from_iterable(sequence.children() for sequence in sequences)
    return [layer for layer in layers if list(layer.children())]


def memsave(model: nn.Module, part: Part) -> nn.Module:
    """By hand, and then memsave_torch's layers in place of PyTorch's.

    Source: https://github.com/plutonium-239/memsave_torch; it is not on PyPI. Its dropout cannot be called.
    """
    from memsave_torch.nn import convert_to_memory_saving  # type: ignore[import-not-found]

    modes = {name: module.training for name, module in by_hand(model, part).named_modules()}
    converted: nn.Module = convert_to_memory_saving(model, dropout=False)
    for name, module in converted.named_modules():
        module.training = modes[name]  # it forgets them
    return converted


def compiled(model: nn.Module, part: Part) -> nn.Module:
    """By hand, and compiled as a whole."""
    model = by_hand(model, part)
    model.compile()
    return model


WAYS: dict[str, Callable[[nn.Module, Part], nn.Module]] = {
    BASE: by_hand,
    "lean": lean,
    "folded": folded,
    "budget": budgeted,
    "checkpoint all": checkpointed,
    "memsave_torch": memsave,
    "torch.compile": compiled,
}


def ways_of(part: Part, *, quick: bool) -> list[str]:
    """Those that are measured side by side; a compiled model goes by itself."""
    peers = [] if not part.compiled else ["checkpoint all"]
    if peers and find_spec("memsave_torch") and not quick:
        peers.append("memsave_torch")
    # A small model has little that can be computed again.
    ours = [way for way in part.goals if not (quick and way == "budget")]
    return [BASE, *ours, *peers]
