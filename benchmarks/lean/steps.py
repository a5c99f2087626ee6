"""One part in several ways, side by side: by hand, lean, and as others do it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import frostline.torch as ft
from benchmarks.lean.parts import AGAIN, BASE, COMPILED, PARTS, Case, Part
from benchmarks.memory import allocations, peak_of
from benchmarks.timing import Ratio, interleaved
from benchmarks.training import Trainee, share
from benchmarks.zoo import ZOO


def by_hand(model: nn.Module, part: Part) -> nn.Module:
    """As everybody writes it."""
    for path in ft.freeze(copy.deepcopy(model), *part.frozen).plan.frozen:
        model.get_parameter(path).requires_grad_(False)
    for module in model.modules():
        module.training &= any(p.requires_grad for p in module.parameters())
    return model


def leaned(model: nn.Module, part: Part, **options: Any) -> nn.Module:
    """Frozen, and then made lean."""
    ft.freeze(model, *part.frozen)
    ft.lean(model, **options)
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
    "lean": leaned,
    "folded": partial(leaned, exact=False),
    "budget": lambda model, part: leaned(model, part, memory_budget=part.budget),
    "checkpoint all": checkpointed,
    "memsave_torch": memsave,
    COMPILED: compiled,
}


def trainee(part: Part, way: str, *, small: bool, like: Trainee | None) -> Trainee:
    """The same model every time, on the bytes of `like`; with a learning rate of 0 these never change."""
    torch.manual_seed(0)
    model, batch = ZOO[part.model](small=small)
    if like is not None:
        share(like.model, model, "parameters")
        batch = like.batch
    model = WAYS[way](model.train(), part)
    trained = [p for p in model.parameters() if p.requires_grad]
    return Trainee(model, model, batch, torch.optim.AdamW(trained, lr=0.0, weight_decay=0.1))


def saved(one: Trainee) -> int:
    """Bytes that a forward pass leaves to the backward pass, from the allocator: so layers of all kinds count alike."""
    one.optimizer.zero_grad()
    with allocations() as ledger:
        loss = one.loss()
    del loss
    return ledger.held


def peak(one: Trainee) -> int:
    """The most bytes that a step holds at a time."""
    one.optimizer.zero_grad()
    return peak_of(one.step)


def gradients(one: Trainee) -> list[torch.Tensor]:
    """The bits of the gradients of the parameters that train."""
    return [p.grad.view(torch.int32).clone() for p in one.model.parameters() if p.grad is not None]


def measure(name: str, rounds: int, ways: Sequence[str], small: bool) -> Case:  # noqa: FBT001
    """Measures one part; the first way is by hand, and is timed twice."""
    trained: dict[str, Trainee] = {}
    for way in ways:
        trained[way] = trainee(PARTS[name], way, small=small, like=trained.get(BASE))
    for one in trained.values():
        for _ in range(3):
            one.step()
    bits = {way: gradients(one) for way, one in trained.items()}
    steps = {way: one.step for way, one in trained.items()}
    seconds = interleaved({**steps, AGAIN: steps[BASE]}, rounds)
    return Case(
        step_ms=1000 * median(seconds[BASE]),
        times={way: Ratio.of(taken, seconds[BASE]) for way, taken in seconds.items() if way != BASE},
        same={way: all(map(torch.equal, found, bits[BASE])) for way, found in bits.items()},
        saved={way: saved(one) for way, one in trained.items()},
        peak={way: peak(one) for way, one in trained.items()},
    )
