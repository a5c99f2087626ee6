"""Which group of an optimizer each parameter belongs to, whether it is in it now or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline._core.rules import Rule, options_by_path
from frostline.torch._freezing.survey import Survey
from frostline.torch._holding.claims import stack_at

# A function of a model that makes the parameter groups of an optimizer, as timm and most trainers have one.
Grouping = Callable[[nn.Module], Iterable[Mapping[str, Any]]]
# The number of no group: where a parameter would go is not known.
NOWHERE = -1
_NO_OPTIONS = {"params", "param_names", "initial_lr"}
# The group that a parameter would be in, its options that differ from those of that one, and the factor of its rate.
_Place = tuple[int, tuple[tuple[str, Any], ...], float | None]


def assigned(
    chain: Sequence[Any], read: Survey, paths: Sequence[str], rules: Sequence[Rule], grouping: Grouping | None = None
) -> dict[str, int]:
    """Returns the number of the group of each path, and adds the groups that are asked for, empty, to the optimizer.

    All groups there will ever be are made here: learning-rate schedulers note the groups when they are made, and a
    group that is added later has no schedule. A parameter that the optimizer never had joins the one group that has
    the options that were said for it. Of options that were not said, all groups must have the same value. `NOWHERE` is
    where a constant goes of which that is not so; it has no group as long as it stays constant. A rule that changes
    options moves a parameter into the group that has them, if there is one, and needs a new group else.

    Args:
        chain: the optimizer, the innermost one last, with those around it.
        read: the model.
        paths: the parameters that the optimizer is for.
        rules: options by selector.
        grouping: says the options of parameters that the optimizer never had.

    Raises:
        BindError: a rule has an option that the optimizer lacks, or needs a group that a scheduler would not know; or
            the group of a parameter that may thaw is not known.
    """
    optimizer: Optimizer = chain[-1]
    given = options_by_path(rules, read.inventory)
    for rule in rules:
        _check_options(repr(rule), rule.options, optimizer)
    said = _said_by(grouping, read, paths, optimizer) if grouping is not None else {}
    places = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
    groups = optimizer.param_groups
    wanted: dict[str, _Place] = {}
    for path in paths:
        options = dict(given.get(path, {}))
        scale = options.pop("lr_scale", None)
        number = places.get(id(read.parameters[path]))
        if number is None:
            number, options = _place(groups, {**said.get(path, {}), **options})
        elif options:
            number, options = _elsewhere(groups, number, options)
        wanted[path] = number, tuple(sorted(options.items())), scale if number != NOWHERE else None
    unknown = [
        path
        for path, (number, *_) in wanted.items()
        if number == NOWHERE and not stack_at(*read.sites[path][0]).is_constant
    ]
    if unknown:
        raise BindError(
            "bind(optimizer, model)",
            f"finds {len(unknown)} of {len(paths)} parameters in none of the {len(groups)} groups of the optimizer, "
            f"which differ in {', '.join(_different(groups))}:",
            tuple(unknown),
            f"Say what they get when they thaw: bind(..., rules=[Rule({unknown[0]!r}, {_example(groups)})]), "
            'or groups=function, or leave them out by selectors: bind(optimizer, model, "head").',
        )
    new = [key for key in dict.fromkeys(wanted.values()) if key[1] or key[2] is not None]
    if new and any(hasattr(each.step, "_wrapped_by_lr_sched") for each in chain):
        raise BindError(
            "bind(optimizer, model, rules=...)",
            f"needs {len(new)} more parameter groups, and a scheduler of this optimizer knows of {len(groups)} only.",
            (),
            "Bind first, then make the scheduler: bind(optimizer, model, rules=rules); StepLR(optimizer, n).",
        )
    first = len(groups)
    for number, changes, scale in new:
        groups.append(_with(groups[number], dict(changes), 1.0 if scale is None else scale))
    numbers = {key: first + place for place, key in enumerate(new)}
    return {path: numbers.get(key, key[0]) for path, key in wanted.items()}


def check_grouped(optimizer: Optimizer, owned: Mapping[str, torch.Tensor], groups: Mapping[str, int]) -> None:
    """Checks that all that trains has a group.

    Raises:
        BindError: a constant has thawed that the optimizer never had.
    """
    lost = [path for path, number in groups.items() if number == NOWHERE and owned[path].requires_grad]
    if lost:
        raise BindError(
            "optimizer.step()",
            f"finds {len(lost)} of {len(owned)} parameters that train and have no group: the optimizer never had them, "
            f"and its {len(optimizer.param_groups)} groups differ in {', '.join(_different(optimizer.param_groups))}.",
            tuple(lost),
            f"Say what they get: bind(..., rules=[Rule({lost[0]!r}, {_example(optimizer.param_groups)})]), "
            "or groups=function.",
        )


def check_any(root: nn.Module, names: Sequence[str], optimizers: Sequence[Optimizer]) -> None:
    """Checks that an optimizer without parameters takes a step for a reason: others train the rest of the model.

    Args:
        root: the model.
        names: the parameters that the optimizer is for.
        optimizers: all that are bound.

    Raises:
        BindError: nothing of the model is in any of them.
    """
    inside = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    training = [path for path, p in root.named_parameters() if p.requires_grad]
    if any(id(p) in inside for p in root.parameters()):
        return
    if training:
        problem = f"has nothing to move: {len(training)} parameters train that it is not bound to:"
        fix = "Bind when the model is complete: binding.release(); binding = bind(optimizer, model)."
    else:
        problem = f"has nothing to move: all of its {len(names)} parameters are frozen."
        fix = 'Thaw what is to train: thaw(model, "head").'
    raise BindError("optimizer.step()", problem, tuple(training), fix)


def _place(groups: Sequence[Mapping[str, Any]], options: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Returns the group of a parameter that the optimizer never had, and the options in which it differs from it."""
    fits = [
        n for n, group in enumerate(groups) if all(k in group and _same(_said(group, k), options[k]) for k in options)
    ]
    if any(key not in options for key in _different([groups[n] for n in fits] or groups)):
        return NOWHERE, {}
    return (fits[0], {}) if fits else (0, options)


def _elsewhere(groups: Sequence[Mapping[str, Any]], number: int, options: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Returns the group that differs from a parameter's own in nothing but what a rule says, or the own and that."""
    own = groups[number]
    changed = {key: value for key, value in options.items() if not (key in own and _same(_said(own, key), value))}
    for place, group in enumerate(groups):
        keys = (own.keys() | group.keys() | changed.keys()) - _NO_OPTIONS
        if all(key in group and _same(_said(group, key), changed.get(key, _said(own, key))) for key in keys):
            return place, {}
    return number, changed


def _different(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for group in groups for key in group if key not in _NO_OPTIONS)
    return [
        key
        for key in keys
        if not all(key in each and _same(_said(each, key), _said(groups[0], key)) for each in groups)
    ]


def _said(group: Mapping[str, Any], key: str) -> Any:
    """Returns an option as it was said: a scheduler that warms up has made all rates 0 before the first step."""
    return group["initial_lr"] if key == "lr" and "initial_lr" in group else group.get(key)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return float(one) == float(other)
    return bool(one == other)


def _example(groups: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{key}={_said(groups[0], key)!r}" for key in _different(groups))


def _said_by(grouping: Grouping, read: Survey, paths: Sequence[str], optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """Returns the options that a function of the model gives each path; it sees all of them as trainable."""
    tensors = [read.parameters[path] for path in paths]
    flags = [tensor.requires_grad for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.requires_grad_(True)
        made = [dict(group) for group in grouping(read.root)]
    finally:
        for tensor, flag in zip(tensors, flags, strict=True):
            tensor.requires_grad_(flag)
    names = {id(tensor): path for path, tensor in zip(paths, tensors, strict=True)}
    known = {key for group in optimizer.param_groups for key in group}
    found = {}
    for group in made:
        options = {key: value for key, value in group.items() if key in known and key not in _NO_OPTIONS}
        inside = [group["params"]] if isinstance(group["params"], torch.Tensor) else group["params"]
        for each in inside:
            key = id(each[1] if isinstance(each, tuple) else each)
            if key in names:
                found[names[key]] = options
    return found


def _check_options(expression: str, options: Mapping[str, Any], optimizer: Optimizer) -> None:
    if unknown := sorted(options.keys() - optimizer.defaults.keys() - {"lr_scale"}):
        raise BindError(
            expression,
            f"has {len(unknown)} options that {type(optimizer).__name__} lacks: {', '.join(unknown)}. It has:",
            tuple(sorted(optimizer.defaults)),
            "Write lr_scale=0.1 for a factor of the learning rate, and weight_decay=0.0 for an option.",
        )


def _with(group: Mapping[str, Any], changes: dict[str, Any], scale: float) -> dict[str, Any]:
    """Returns an empty group with the options of another one, and changes to them."""
    made = {**group, **changes, "params": []}
    # Schedulers start from this one, the learning rate at first.
    if "initial_lr" in made:
        made["initial_lr"] = made["lr" if "lr" in changes else "initial_lr"] * scale
    made["lr"] = made["lr"] * scale
    if "param_names" in made:
        made["param_names"] = []
    return made
