"""Training routines that know nothing of freezing, and the optimizers that they are run with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn, optim

Make = Callable[[Iterable[nn.Parameter]], optim.Optimizer]

KINDS: dict[str, Make] = {
    "sgd decay": lambda p, **how: optim.SGD(p, 0.1, weight_decay=0.1, **how),
    "sgd momentum": lambda p, **how: optim.SGD(p, 0.1, momentum=0.9, **how),
    "sgd nesterov decay": lambda p, **how: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1, **how),
    "adam": lambda p, **how: optim.Adam(p, 0.1, **how),
    "adamw": lambda p, **how: optim.AdamW(p, 0.1, weight_decay=0.1, **how),
    "rmsprop": lambda p, **how: optim.RMSprop(p, 0.1, momentum=0.9, weight_decay=0.1, **how),
    "adagrad": lambda p, **how: optim.Adagrad(p, 0.1, weight_decay=0.1, **how),
    "nadam": lambda p, **how: optim.NAdam(p, 0.1, weight_decay=0.1, **how),
    "adafactor": lambda p, **how: optim.Adafactor(p, 0.1, weight_decay=0.1, **how),
    "lbfgs": lambda p, **how: optim.LBFGS(p, 0.1, max_iter=2, **how),
}
FUSED = ["sgd decay", "sgd momentum", "sgd nesterov decay", "adam", "adamw", "adagrad"]
WAYS = (
    [(kind, "plain") for kind in KINDS]
    + [(kind, "foreach") for kind in KINDS if kind != "lbfgs"]
    + [(kind, "fused") for kind in FUSED]
)


def make(kind: str, way: str) -> Make:
    how = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[way]
    return lambda parameters: KINDS[kind](parameters, **({} if kind == "lbfgs" else how))


def net() -> nn.Module:
    """A trainable stem, a trunk to freeze (with statistics and dropout), and a head with both kinds of state."""
    model = nn.Sequential()
    model.add_module("stem", nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    model.add_module("trunk", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1), nn.Linear(4, 4)))
    model.add_module("head", nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)))
    return model


def loss(model: nn.Module) -> torch.Tensor:
    return (model(torch.linspace(-1, 1, 24).reshape(6, 4).sin()) - 1).square().sum()


def plainly(model: nn.Module, optimizer: optim.Optimizer) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=False)
        value = loss(model)
        value.backward()
        return value

    optimizer.step(closure)


def clipped(model: nn.Module, optimizer: optim.Optimizer) -> None:
    def closure() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=False)
        value = loss(model)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        return value

    optimizer.step(closure)


def accumulated(model: nn.Module, optimizer: optim.Optimizer) -> None:
    loss(model).backward()
    loss(model).backward()
    optimizer.step(lambda: loss(model))
    optimizer.zero_grad(set_to_none=False)


def scaled(model: nn.Module, optimizer: optim.Optimizer) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer.zero_grad(set_to_none=False)
    scaler.scale(loss(model)).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    scaler.step(optimizer)
    scaler.update()


Routine = Callable[[nn.Module, optim.Optimizer], None]
ROUTINES: dict[str, Routine] = {
    "plain": plainly,
    "clipped": clipped,
    "accumulated": accumulated,
    "scaled": scaled,
}


def leave_gradients(model: nn.Module, gradient: str) -> None:
    """Leaves gradients as an earlier step may: none, zeros, or those of a backward."""
    model.zero_grad(set_to_none=True)
    if gradient != "none":
        loss(model).backward()
    if gradient == "zero":
        model.zero_grad(set_to_none=False)


def warm(kind: str, way: str, gradient: str) -> tuple[nn.Module, optim.Optimizer]:
    """A model that has been trained for two steps, and its optimizer with momentum for all of it."""
    model = net()
    optimizer = make(kind, way)(list(model.parameters()))
    for _ in range(2):
        plainly(model, optimizer)
    leave_gradients(model, gradient)
    return model, optimizer


def run(routine: str, kind: str, model: nn.Module, optimizer: optim.Optimizer) -> None:
    # GradScaler takes no closure, which LBFGS needs.
    step = ROUTINES["clipped" if (kind, routine) == ("lbfgs", "scaled") else routine]
    for _ in range(2):
        model.train()
        step(model, optimizer)
