"""Findings about a model and the optimizers that train it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from frostline._core.findings import Finding
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import Survey
from frostline.torch._training.binding import LIVE
from frostline.torch._training.moments import state_bytes


def unowned(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Finds trainable parameters that no optimizer has."""
    owned = {id(p) for p in _owned(optimizers)}
    trainable = plan_of(read).trainable
    paths = [p for p, t in read.parameters.items() if p in trainable and id(t) not in owned]
    if paths:
        yield Finding(
            "unowned",
            tuple(paths),
            f"{_count(len(paths), 'trainable parameter')} in no optimizer that was given.",
            "They get gradients and never move.",
            'optimizer.add_param_group({"params": [...]}) with these parameters, or freeze them.',
        )


def owned_twice(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Finds parameters in two groups or in two optimizers."""
    times = Counter(id(p) for p in _owned(optimizers))
    paths = [path for path, tensor in read.parameters.items() if times[id(tensor)] > 1]
    if paths:
        yield Finding(
            "owned-twice",
            tuple(paths),
            "The same parameter is in two parameter groups or two optimizers.",
            "It is moved twice a step.",
            "keep it in one: torch.optim.AdamW(trainable(model).values()).",
        )


def foreign(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Finds optimizers with parameters that the model does not have, or no longer has."""
    known = {id(p) for module in read.modules.values() for p in module._parameters.values()}
    shapes = [tuple(p.shape) for p in _owned(optimizers) if id(p) not in known]
    if shapes:
        rest = len(shapes) - 4
        listed = ", ".join(map(str, shapes[:4])) + (f" and {rest} more" if rest > 0 else "")
        yield Finding(
            "foreign",
            (),
            f"{_count(len(shapes), 'parameter', 'of the optimizer')} not in the model: {listed}.",
            "A module was replaced after the optimizer was made, so what replaced it never moves.",
            "make the optimizer after the last change of the model.",
        )


def bound_elsewhere(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Finds optimizers that are bound to another model, such as the one that this is a copy of."""
    known = {id(p) for p in read.parameters.values()}
    for binding in list(LIVE):
        if not any(binding.optimizer is each for each in optimizers) or _is_inside(binding._members.root, read.root):
            continue
        if paths := [path for path, tensor in binding._members.owned.items() if id(tensor) not in known]:
            yield Finding(
                "bound-elsewhere",
                tuple(paths),
                f"{type(binding.optimizer).__name__} is bound to another model, and they are parameters of that one.",
                "It follows what is frozen there, and nothing that is frozen here.",
                "make an optimizer for this model, and bind it: bind(torch.optim.AdamW(model.parameters()), model).",
            )


def _is_inside(one: nn.Module, other: nn.Module) -> bool:
    return any(one is module for module in other.modules()) or any(other is module for module in one.modules())


def leftover_state(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Finds moments that optimizers keep for frozen parameters."""
    frozen = plan_of(read).frozen
    sizes = [
        (path, state_bytes(optimizer, tensor))
        for path, tensor in read.parameters.items()
        for optimizer in optimizers
        if path in frozen and state_bytes(optimizer, tensor)
    ]
    if sizes:
        yield Finding(
            "leftover-state",
            tuple(path for path, _ in sizes),
            f"They are frozen and {sum(size for _, size in sizes):,} bytes of optimizer state are kept for them.",
            "It takes memory, and old moments act again when they are thawed.",
            "optimizer.state.pop(parameter), if they stay frozen.",
        )


def idle(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Finds optimizers all of whose parameters are frozen."""
    for optimizer in optimizers:
        if not any(p.requires_grad for p in _owned([optimizer])):
            yield Finding(
                "idle-optimizer",
                (),
                f"All parameters of {type(optimizer).__name__} are frozen.",
                "Its steps do nothing, and GradScaler.step raises for lack of inf checks.",
                "leave its step out, or thaw what it is for.",
            )


def _owned(optimizers: Sequence[Optimizer]) -> list[torch.Tensor]:
    return [p for o in optimizers for group in o.param_groups for p in group["params"]]


def _count(number: int, noun: str, whose: str = "") -> str:
    subject = " ".join(filter(None, (noun if number == 1 else noun + "s", whose)))
    return f"{number} {subject} is" if number == 1 else f"{number} {subject} are"


OPTIMIZER_FINDINGS: tuple[Callable[[Survey, Sequence[Optimizer]], Iterator[Finding]], ...] = (
    unowned,
    owned_twice,
    foreign,
    bound_elsewhere,
    idle,
    leftover_state,
)
