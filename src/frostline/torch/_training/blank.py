"""Moments of zeros in the form that an optimizer makes them, for what is to be read into them."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer

_HOOKS = "_hooks"


def blank_moments(optimizer: Optimizer, tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
    """Returns what the optimizer would keep for each trainable tensor, in zeros; it and the tensors stay as they are.

    Args:
        optimizer: an optimizer without moments.
        tensors: name -> tensor; those that are in it are looked at.
    """
    names = {id(tensor): name for name, tensor in tensors.items()}
    twins: dict[str, torch.Tensor] = {}
    groups = []
    for group in optimizer.param_groups:
        inside = [p for p in group["params"] if p.requires_grad and id(p) in names]
        for p in inside:
            twin = torch.zeros_like(p).requires_grad_()
            twin.grad = torch.zeros_like(p)
            twins[names[id(p)]] = twin
        groups.append({**group, "params": [twins[names[id(p)]] for p in inside]})
    other = object.__new__(type(optimizer))
    other.__dict__.update(optimizer.__dict__)
    # Schedulers put their own `step` into the optimizer, and it counts.
    other.__dict__.pop("step", None)
    other.__dict__.update({key: OrderedDict() for key in other.__dict__ if key.endswith(_HOOKS)})
    other.state, other.param_groups = defaultdict(dict), groups
    type(optimizer).step(other)
    return {
        name: {k: torch.zeros_like(v) if isinstance(v, torch.Tensor) else v for k, v in other.state[twin].items()}
        for name, twin in twins.items()
        if other.state.get(twin)
    }
