"""What a user of PyTorch writes, with the type of all that frostline gives back. It is checked, and never run."""

from typing import assert_type

import torch
from torch import Tensor, nn

import frostline.torch as ft
from frostline import Change, Plan, Rule, of_type, schedules, where

model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
x = torch.ones(3, 4)

handle = ft.freeze(model, "[:-1]", where(lambda p: p.size > 3), of_type(nn.BatchNorm1d), mode="follow")
assert_type(handle, ft.Handle)
assert_type(handle.plan, Plan)
with ft.thaw(model, "[0]") as thawed:
    assert_type(thawed, ft.Handle)
assert_type(ft.plan(model), Plan)
assert_type(ft.follow(model, handle.plan), Change)
assert_type(ft.trainable(model), dict[str, nn.Parameter])
assert_type(ft.frozen(model), dict[str, nn.Parameter])
assert_type(ft.blocks(model), list[str])

use = ft.Frozen(nn.Linear(2, 2))
assert_type(use, nn.Linear)
assert_type(use.in_features, int)


def is_frozen_use(module: nn.Module) -> bool:
    return isinstance(module, ft.Frozen)


optimizer = torch.optim.AdamW(ft.trainable(model).values())
binding = ft.bind(optimizer, model, rules=[Rule("**.bias", weight_decay=0.0)])
assert_type(binding, ft.Binding)
assert_type(binding.rates(), dict[str, float])
driver = ft.Driver(schedules.LinearProbe("[-1]", steps=4), model, binding)
assert_type(driver.steps, int)

line = ft.frostline(model, x)
assert_type(line, ft.FrostLine)
assert_type(line.below(x), tuple[Tensor, ...])
assert_type(ft.lean(model), ft.Lean)
assert_type(ft.report(model).to_dict(), dict[str, object])
assert_type(str(ft.check(model, optimizer)), str)
assert_type(ft.cost(model, x).now.saved_bytes, int)
assert_type(ft.select(model, "**").paths, tuple[str, ...])
assert_type(ft.audit(model, x).stopped, frozenset[str])
