"""Which group of an optimizer each parameter belongs to, whether it is in it now or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.optim import Optimizer

from frostline._core.errors import BindError
from frostline._core.rules import Rule, options_by_path
from frostline.torch._freezing.survey import Survey


def assigned(optimizer: Optimizer, read: Survey, paths: Sequence[str], rules: Sequence[Rule]) -> dict[str, int]:
    """Returns the number of the group of each path, and adds the groups that rules ask for, empty, to the optimizer.

    All groups there will ever be are made here: learning-rate schedulers note the groups when they are made, and a
    group that is added later has no schedule.

    Raises:
        BindError: a rule has an option that the optimizer lacks, or needs a group that a scheduler would not know.
    """
    options = options_by_path(rules, read.inventory)
    for rule in rules:
        if unknown := sorted(rule.options.keys() - optimizer.defaults.keys() - {"lr_scale"}):
            raise BindError(
                repr(rule),
                f"has {len(unknown)} options that {type(optimizer).__name__} lacks: {', '.join(unknown)}. It has:",
                tuple(sorted(optimizer.defaults)),
                "Write lr_scale=0.1 for a factor of the learning rate, and weight_decay=0.0 for an option.",
            )
    places = {id(p): number for number, group in enumerate(optimizer.param_groups) for p in group["params"]}
    wanted = {
        path: (places.get(id(read.parameters[path]), 0), tuple(sorted(options.get(path, {}).items()))) for path in paths
    }
    new = [key for key in dict.fromkeys(wanted.values()) if key[1]]
    if new and hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise BindError(
            "bind(optimizer, model, rules=...)",
            f"needs {len(new)} more parameter groups, and a scheduler of this optimizer knows of "
            f"{len(optimizer.param_groups)} only.",
            (),
            "Bind first, then make the scheduler: bind(optimizer, model, rules=rules); StepLR(optimizer, n).",
        )
    first = len(optimizer.param_groups)
    for number, changes in new:
        optimizer.param_groups.append(_with(optimizer.param_groups[number], dict(changes)))
    numbers = {key: first + place for place, key in enumerate(new)}
    return {path: numbers.get(key, key[0]) for path, key in wanted.items()}


def _with(group: Mapping[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns an empty group with the options of another one, and changes to them."""
    scale = changes.pop("lr_scale", 1.0)
    made = {**group, **changes, "params": []}
    made["lr"] = made["lr"] * scale
    # Schedulers start from this one, the learning rate at first.
    if "initial_lr" in made:
        made["initial_lr"] = made["initial_lr"] * scale
    if "param_names" in made:
        made["param_names"] = []
    return made
