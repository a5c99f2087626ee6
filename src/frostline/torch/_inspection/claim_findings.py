"""Findings about flags, modules and tensors that other code changed after a freeze or thaw."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from frostline._core.errors.base import counted
from frostline._core.findings import Finding
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.calls import checkpoints_activations
from frostline.torch._holding.claims import ClaimStack, Site, ledger_of
from frostline.torch._holding.classes import is_held_alone
from frostline.torch._holding.mode import goes_on_checkpointing, held_mode, is_held, is_wanted_in_training
from frostline.torch._holding.moved_claims import lost_claims, moved_claims
from frostline.torch._holding.thaws import is_fresh


def thawed_by_hand(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds parameters that a claim freezes but that require a gradient."""
    paths = [path for path, stack in _stacks(read) if stack.claims[-1].frozen and read.parameters[path].requires_grad]
    if paths:
        yield Finding(
            "thawed-by-hand",
            tuple(paths),
            "They were frozen, and requires_grad was set to True since.",
            "They train, while frozen modules around them stay in evaluation mode.",
            f"freeze(model, {paths[0]!r}) again; or thaw(model, {paths[0]!r}), if they are to train.",
        )


def held_but_trains(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds held modules that contain a trainable parameter."""
    for path, module in read.modules.items():
        if not is_held(module) or id(module) in read.pinned or not any(p.requires_grad for p in module.parameters()):
            continue
        if is_held_alone(module):
            continue
        # A module that is to be in evaluation mode anyway follows its next train().
        if held_mode(module) == "follow" or is_wanted_in_training(module):
            yield Finding(
                "held-but-trains",
                (path or "(the model itself)",),
                f"{type(module).__name__} is held as a frozen module, and something in it trains.",
                "Its dropout is off and its statistics stand still.",
                "thaw(model, ...) with the path of what trains; or freeze it again.",
            )


def idle_checkpointing(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds held modules that were told to compute activations again after they were held."""
    for path, module in read.modules.items():
        is_on = getattr(module, "gradient_checkpointing", False) and checkpoints_activations(module)
        if (
            is_on
            and held_mode(module) == "eval"
            and is_wanted_in_training(module)
            and not goes_on_checkpointing(module)
        ):
            yield Finding(
                "idle-checkpointing",
                (path or "(the model itself)",),
                f"{type(module).__name__} is frozen, and got its flag for activation checkpointing since.",
                "It asks for training mode, in which it is not, and keeps all activations.",
                f"thaw(model, {path!r}), and freeze it again; or set the flag first.",
            )


def moved(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds frozen parameters that surgery on the model took to another module, or gave another name."""
    sites = [each.site for each in moved_claims(read.modules.values()) if each.stack.claims[-1].frozen]
    buffers = [site for site in sites if site[1].startswith(".")]
    if paths := _paths(buffers, read):
        yield Finding(
            "moved-claims",
            paths,
            "They were frozen by themselves, and their module was converted since.",
            "What has them now is not held, and writes them in training mode.",
            f"freeze(model, {', '.join(map(repr, paths))}) again.",
        )
    if paths := _paths([site for site in sites if site not in buffers], read):
        owner, *inside = paths[0].split(".parametrizations.")
        owner = owner if inside else owner.rpartition(".")[0]
        yield Finding(
            "moved-claims",
            paths,
            "They are what became of frozen parameters: the model was pruned, parametrized or converted since.",
            "What has them now is not held, and may train.",
            f"freeze(model, {owner!r}) again." if owner else "freeze(model) again.",
        )


def lost(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds frozen parameters that are plain tensors now."""
    sites = [site for site, stack in lost_claims(read.modules.values()) if stack.claims and stack.claims[-1].frozen]
    if paths := _paths(sites, read):
        one = len(paths) == 1
        yield Finding(
            "lost-claims",
            paths,
            "It was frozen as a parameter, and is a plain tensor now."
            if one
            else "They were frozen as parameters, and are plain tensors now.",
            "No optimizer can train it, and nothing can thaw it."
            if one
            else "No optimizer can train them, and nothing can thaw them.",
            "make a parameter of it, module.weight = nn.Parameter(module.weight), and freeze that.",
        )


def frozen_by_hand(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds parameters that a claim thaws but that do not require a gradient."""
    paths = [path for path, stack in _stacks(read) if stack.trains and not read.parameters[path].requires_grad]
    if paths:
        yield Finding(
            "frozen-by-hand",
            tuple(paths),
            "They were to train, and requires_grad was set to False since.",
            "The next thaw, plan or phase of a schedule makes them train again.",
            f"freeze(model, {paths[0]!r}).",
        )


def without_gradient(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds trainable parameters that the last backward has not reached, where it has reached others."""
    wanted = plan_of(read).trainable
    trainable = {path: tensor for path, tensor in read.parameters.items() if path in wanted}
    paths = [path for path, tensor in trainable.items() if tensor.grad is None and not is_fresh(tensor)]
    if paths and any(tensor.grad is not None for tensor in trainable.values()):
        yield Finding(
            "no-gradient",
            tuple(paths),
            f"{len(paths)} of {counted(len(trainable), 'trainable parameter')} got no gradient in the last backward.",
            "They never move: they are not used, or something between them and the loss is detached.",
            f"use them in the loss; or freeze(model, {paths[0]!r}).",
        )


def left_constants(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds constants that a thaw or a plan did not thaw."""
    paths = [
        path
        for path, stack in _stacks(read)
        if stack.is_constant and not stack.claims[-1].frozen and read.inventory.by_name[path].can_train
    ]
    if paths:
        yield Finding(
            "constants",
            tuple(paths),
            f"{counted(len(paths), 'parameter')} did not train before anything was frozen here, and was left alone."
            if len(paths) == 1
            else f"{len(paths)} parameters did not train before anything was frozen here, and were left alone.",
            "A thaw of many, a plan and a schedule take constants for what they were.",
            f"thaw(model, {paths[0]!r}), if it is to train; or freeze(model, {paths[0]!r}).",
        )


def _stacks(read: Survey) -> Iterator[tuple[str, ClaimStack]]:
    for path in read.parameters:
        module, local = read.sites[path][0]
        stack = ledger_of(module).get(local)
        if stack is not None and stack.claims and id(module) not in read.pinned:
            yield path, stack


def _paths(sites: list[Site], read: Survey) -> tuple[str, ...]:
    places = {id(module): path for path, module in reversed(read.modules.items())}
    names = (f"{places[id(module)]}.{local.removeprefix('.')}" for module, local in sites)
    return tuple(dict.fromkeys(name.removeprefix(".") for name in names))


CLAIM_FINDINGS: tuple[Callable[[nn.Module, Survey], Iterator[Finding]], ...] = (
    thawed_by_hand,
    held_but_trains,
    idle_checkpointing,
    moved,
    lost,
    frozen_by_hand,
    without_gradient,
    left_constants,
)
