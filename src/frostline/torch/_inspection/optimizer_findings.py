"""Findings about what optimizers make of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.optim import Optimizer

from frostline._core.findings import Finding
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import Survey
from frostline.torch._training.moments import state_bytes

Look = Callable[[Survey, Sequence[Optimizer]], Iterator[Finding]]


def unowned(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Trainable parameters that no optimizer has."""
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
    """The same parameter in two groups or in two optimizers."""
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
    """Parameters of an optimizer that the model does not have, or not any more."""
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


def leftover_state(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """Frozen parameters for which an optimizer keeps moments."""
    frozen = plan_of(read).frozen
    held = [
        (path, state_bytes(optimizer, tensor))
        for path, tensor in read.parameters.items()
        for optimizer in optimizers
        if path in frozen and state_bytes(optimizer, tensor)
    ]
    if held:
        yield Finding(
            "leftover-state",
            tuple(path for path, _ in held),
            f"They are frozen and {sum(size for _, size in held):,} bytes of optimizer state are kept for them.",
            "It takes memory, and old moments act again when they are thawed.",
            "optimizer.state.pop(parameter), if they stay frozen.",
        )


def idle(read: Survey, optimizers: Sequence[Optimizer]) -> Iterator[Finding]:
    """An optimizer all of whose parameters are frozen."""
    for optimizer in optimizers:
        if not any(p.requires_grad for p in _owned([optimizer])):
            yield Finding(
                "idle-optimizer",
                (),
                f"All parameters of {type(optimizer).__name__} are frozen.",
                "Its steps do nothing, and GradScaler.step raises for lack of inf checks.",
                "leave its step out, or thaw what it is for.",
            )


LOOKS: tuple[Look, ...] = (unowned, owned_twice, foreign, idle, leftover_state)


def _owned(optimizers: Sequence[Optimizer]) -> list[torch.Tensor]:
    return [p for o in optimizers for group in o.param_groups for p in group["params"]]


def _count(number: int, noun: str, whose: str = "") -> str:
    subject = " ".join(filter(None, (noun if number == 1 else noun + "s", whose)))
    return f"{number} {subject} is" if number == 1 else f"{number} {subject} are"
