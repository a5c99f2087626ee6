"""Findings about a model alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from frostline._core.findings import Finding
from frostline.torch._freezing.freezing import plan_of
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import words_of
from frostline.torch._holding.mode import held_mode, is_held
from frostline.torch._wrappers import FOLLOWING, wrappers

_WITH_STATISTICS = (nn.modules.batchnorm._NormBase, nn.utils.parametrizations._SpectralNorm)


def nothing_trainable(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds a model without trainable parameters: training will do nothing, or backward will raise."""
    if read.parameters and not plan_of(read).trainable & read.parameters.keys():
        yield Finding(
            "nothing-trainable",
            (),
            f"All {len(read.parameters)} parameters are frozen.",
            "Training moves nothing; backward() raises unless an input requires a gradient.",
            'thaw(model, "head"), with the part that is to learn.',
        )


def wrapped(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds data-parallel wrappers that were created with another trainable set."""
    trainable = plan_of(read).trainable
    for _, wrapper in wrappers(model, read.parameters.values()):
        if wrapper in FOLLOWING:
            continue  # it takes up what is frozen now before its next call
        inside, known = set(map(id, wrapper.parameters())), _noted_as_trainable(wrapper)
        paths = [(path, id(tensor)) for path, tensor in read.parameters.items() if id(tensor) in inside]
        frozen = [path for path, key in paths if path not in trainable and key in known]
        thawed = [path for path, key in paths if path in trainable and key not in known]
        name = type(wrapper).__name__
        fix = f"freeze and thaw first, then wrap: {name}(model)."
        if isinstance(wrapper, DistributedDataParallel):
            fix = "let the wrapper follow, on each rank: ddp = rewrap(ddp)."
        if frozen:
            yield Finding(
                "wrapped-then-frozen",
                tuple(frozen),
                f"{name} was made while they were trainable.",
                "It waits for gradients that never come, or keeps memory for them.",
                fix,
            )
        if thawed:
            yield Finding(
                "wrapped-then-thawed",
                tuple(thawed),
                f"{name} was made while they were frozen.",
                "Their gradients are not averaged: the ranks drift apart without a word.",
                fix,
            )


def _noted_as_trainable(wrapper: nn.Module) -> set[int]:
    """Returns the ``id`` of each parameter for which the wrapper made room for gradients."""
    if isinstance(wrapper, DistributedDataParallel):
        buckets = wrapper.reducer._get_zeros_like_grad_buckets()
        return {id(parameter) for bucket in buckets for parameter in bucket.parameters()}
    handle: Any = wrapper._handle
    flat = None if handle is None else handle.flat_param
    return {id(p) for p in flat._params or ()} if flat is not None and flat.requires_grad else set()


def moving_statistics(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds normalisations that are frozen in part or by hand, so that their statistics still move."""
    for path, module in read.modules.items():
        if id(module) in read.pinned or is_held(module) or not isinstance(module, _WITH_STATISTICS):
            continue
        if all(buffer is None for buffer in module._buffers.values()) or words_of(module):
            continue
        if any(not p.requires_grad for p in _affine(path, module, read)):
            yield Finding(
                "moving-statistics",
                (path,),
                f"{type(module).__name__} is frozen in part or by hand, and is not held.",
                "Its running statistics move whenever it is called in training mode.",
                f"freeze(model, {path!r}) freezes all of it.",
            )


def _affine(path: str, module: nn.Module, read: Survey) -> list[nn.Parameter]:
    # A norm without parameters, and a parametrization, go with the module that contains them.
    while not (parameters := list(module.parameters())) and path:
        path = path.rpartition(".")[0]
        module = read.modules[path]
    if isinstance(module, nn.utils.parametrizations._SpectralNorm):
        parameters = list(read.modules[path.rpartition(".")[0]].parameters())
    return parameters


def mode_by_hand(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds held modules whose training flag somebody set."""
    for path, module in read.modules.items():
        if held_mode(module) == "eval" and module.training:
            yield Finding(
                "mode-by-hand",
                (path,),
                f"{type(module).__name__} is frozen, but its training flag was set to True.",
                "Dropout is active in it and statistics move.",
                f"do not write .training on {path!r}; call model.train().",
            )


def stale_gradients(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds frozen parameters that still have a gradient."""
    frozen = plan_of(read).frozen
    paths = [p for p, t in read.parameters.items() if p in frozen and t.grad is not None]
    if paths:
        yield Finding(
            "stale-gradient",
            tuple(paths),
            "They are frozen and still have a gradient.",
            "Optimizers look at .grad and never at requires_grad: the next step moves them.",
            "freeze(model, ...) drops it; by hand: parameter.grad = None.",
        )


def flags_that_do_nothing(model: nn.Module, read: Survey) -> Iterator[Finding]:
    """Finds a ``requires_grad`` that was set on a module, or misspelt on a parameter."""
    on_modules = [p for p, m in read.modules.items() if "requires_grad" in vars(m)]
    if on_modules:
        yield Finding(
            "plain-attribute",
            tuple(path or "(the model itself)" for path in on_modules),
            "requires_grad was set on a module, where it is an attribute like any other.",
            "It freezes nothing.",
            "freeze(model, ...) with its path; del module.requires_grad.",
        )
    misspellings = {"require_grad", "require_grads", "requires_grads", "require_gradient"}
    misspelt = [p for p, t in read.parameters.items() if misspellings & vars(t).keys()]
    if misspelt:
        yield Finding(
            "plain-attribute",
            tuple(misspelt),
            "A misspelt requires_grad was set on a parameter.",
            "It freezes nothing.",
            "freeze(model, ...) with its path.",
        )


MODEL_FINDINGS: tuple[Callable[[nn.Module, Survey], Iterator[Finding]], ...] = (
    nothing_trainable,
    wrapped,
    moving_statistics,
    mode_by_hand,
    stale_gradients,
    flags_that_do_nothing,
)
