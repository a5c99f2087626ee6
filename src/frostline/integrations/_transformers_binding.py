"""The binding of a trainer's optimizer: what it never had joins the group that the trainer's names say."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer

from frostline import Rule
from frostline._core.rules import options_by_path
from frostline.torch import Binding, bind
from frostline.torch._freezing.survey import survey

_SCALE = "lr_scale"


def bound(optimizer: Optimizer, model: nn.Module, rules: Sequence[Rule], decay: float, *, thaws: bool) -> Binding:
    """Binds the optimizer of a trainer.

    Args:
        optimizer: the optimizer.
        model: the model.
        rules: options by selector.
        decay: the weight decay of the trainer.
        thaws: whether a schedule may thaw something. If not, what is frozen needs no group, where an optimizer of the
            user's own has never had it.

    Raises:
        BindError: as in ``bind``.
    """
    decays = {group.get("weight_decay") for group in optimizer.param_groups}
    groups = partial(_decay_groups, decay) if decays == {decay, 0.0} else None
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parts = [] if thaws else [p for p in model.parameters() if p.requires_grad or id(p) in inside]
    others = [Rule(*rule.selectors, **{k: v for k, v in rule.options.items() if k != _SCALE}) for rule in rules]
    binding = bind(optimizer, model, *parts, rules=others, groups=groups)
    # The trainer has made its scheduler, which takes no more groups.
    given = options_by_path(rules, survey(model).inventory)
    binding._rates.by_rule = {path: options[_SCALE] for path, options in given.items() if _SCALE in options}
    return binding


def _decay_groups(decay: float, model: nn.Module) -> list[dict[str, Any]]:
    names = set(Trainer.get_decay_parameter_names(cast(Trainer, None), model))
    sides: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for name, parameter in model.named_parameters():
        sides[name not in names].append(parameter)
    return [{"params": sides[0], "weight_decay": decay}, {"params": sides[1], "weight_decay": 0.0}]
