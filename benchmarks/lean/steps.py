"""One part in several ways, side by side: by hand, lean, and as others do it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import frostline.torch as ft
from benchmarks.lean.parts import AGAIN, BASE, COMPILED, PARTS, Case, Part
from benchmarks.memory import allocations, peak_of
from benchmarks.timing import Ratio, interleaved
from benchmarks.zoo import ZOO


def by_hand(model: nn.Module, part: Part) -> nn.Module:
    """As everybody writes it."""
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
    COMPILED: compiled,
}


@dataclass
class Trainee:
    """A model with a part frozen in one way, with all that a training step needs."""

    model: nn.Module
    batch: tuple[torch.Tensor, ...]
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        """Forward, backward, AdamW."""
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        loss.item()

    def loss(self) -> torch.Tensor:
        """The forward pass alone."""
        out = self.model(*self.batch)
        return F.cross_entropy(out.flatten(0, -2), torch.zeros(out.numel() // out.shape[-1], dtype=torch.long))

    def saved(self) -> int:
        """Bytes that a forward pass leaves to the backward pass.

        Taken from the allocator, so that it is the same count for a layer that keeps its tensors by itself.
        """
        self.optimizer.zero_grad()
        with allocations() as ledger:
            loss = self.loss()
        del loss
        return ledger.held

    def peak(self) -> int:
        """The most bytes that a step holds at a time."""
        self.optimizer.zero_grad()
        return peak_of(self.step)

    def gradients(self) -> list[torch.Tensor]:
        """The bits of the gradients of the parameters that train."""
        return [p.grad.view(torch.int32).clone() for p in self.model.parameters() if p.grad is not None]


def trainee(part: Part, way: str, *, small: bool, like: Trainee | None) -> Trainee:
    """The same model every time; its tensors lie where `like`'s do, since that alone can change a step by 10 %."""
    torch.manual_seed(0)
    model, batch = ZOO[part.model](small=small)
    if like is not None:
        # With a learning rate of 0 they stay what they are.
        for mine, theirs in zip(model.parameters(), like.model.parameters(), strict=True):
            mine.data = theirs.data
        batch = like.batch
    model = WAYS[way](model.train(), part)
    trained = [p for p in model.parameters() if p.requires_grad]
    return Trainee(model, batch, torch.optim.AdamW(trained, lr=0.0, weight_decay=0.1))


def measure(name: str, rounds: int, ways: Sequence[str], small: bool) -> Case:  # noqa: FBT001
    """Measures one part; the first way is by hand, and is timed twice."""
    trained: dict[str, Trainee] = {}
    for way in ways:
        trained[way] = trainee(PARTS[name], way, small=small, like=trained.get(BASE))
    for one in trained.values():
        for _ in range(3):
            one.step()
    gradients = {way: one.gradients() for way, one in trained.items()}
    steps = {way: one.step for way, one in trained.items()}
    seconds = interleaved({**steps, AGAIN: steps[BASE]}, rounds)
    return Case(
        step_ms=1000 * median(seconds[BASE]),
        times={way: Ratio.of(taken, seconds[BASE]) for way, taken in seconds.items() if way != BASE},
        same={way: all(map(torch.equal, found, gradients[BASE])) for way, found in gradients.items()},
        saved={way: one.saved() for way, one in trained.items()},
        peak={way: one.peak() for way, one in trained.items()},
    )
