"""All that the PyTorch front end refuses, with the whole text of each error."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import nn

import frostline.torch as ft
from frostline import Plan, of_type


def net() -> nn.Module:
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    model.add_module("use", ft.Frozen(nn.Linear(2, 2)))
    model.add_module("head", nn.Linear(2, 2))
    return model


def _lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2))


def _scripted() -> nn.Module:
    return torch.jit.script(nn.Linear(2, 2))


def uncopyable() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.cache = Locked(weight=layer.weight)
    return layer


class Locked(dict):
    """A mapping that leads to a tensor, and has a lock, which nothing can copy."""

    def __init__(self, **items: torch.Tensor) -> None:
        super().__init__(items)
        self.lock = threading.Lock()


def _plan_without(path: str) -> Callable[[nn.Module], Plan]:
    return lambda model: Plan(ft.plan(model).frozen - {path}, ft.plan(model).trainable | {path})


FOREIGN = "It is not part of this model, or no longer: select by path instead."
EMPTY_FIX = "Fix the pattern, or pass allow_empty=True if matching nothing is what you want."
MODES = [
    "There are:",
    '  mode="eval"    frozen modules compute as in evaluation',
    '  mode="follow"  frozen modules follow train() and eval(), but still nothing in them moves',
    'Pass mode="eval", or leave it out.',
]
PINNED_FIX = "Build the model with layer in place of Frozen(layer), or train the layer where it is used as it is."

TEXTS: list[tuple[str, Callable[[nn.Module], object], list[str]]] = [
    (
        "thaw a frozen use",
        lambda model: ft.thaw(model, "use"),
        [
            "thaw(model, 'use') names 2 parameters, all inside a frozen use, Frozen(layer).",
            "They are:",
            "  use.bias",
            "  use.weight",
            PINNED_FIX,
        ],
    ),
    (
        "thaw one parameter of a frozen use, as an object",
        lambda model: ft.thaw(model, model.use.bias),
        [
            "thaw(model, <Parameter of shape (2,)>) names 1 parameter, all inside a frozen use, Frozen(layer).",
            "They are:",
            "  use.bias",
            PINNED_FIX,
        ],
    ),
    (
        "thaw a frozen use that is the model",
        lambda model: ft.thaw(model.use),
        [
            "thaw(model) names 2 parameters, all inside a frozen use, Frozen(layer).",
            "They are:",
            "  bias",
            "  weight",
            PINNED_FIX,
        ],
    ),
    (
        "follow a plan that trains a frozen use",
        lambda model: ft.follow(model, _plan_without("use.weight")(model)),
        [
            "follow(model, plan) names 1 parameter, all inside a frozen use, Frozen(layer).",
            "They are:",
            "  use.weight",
            PINNED_FIX,
        ],
    ),
    (
        "follow a plan of another model",
        lambda model: ft.follow(model.head, ft.plan(nn.Sequential(nn.Linear(2, 2, bias=False)))),
        [
            "The plan and what it is compared with have different paths: 1 missing, 2 unknown.",
            "Missing (only in the plan):",
            "  0.weight",
            "Unknown (not in the plan):",
            "  bias",
            "  weight",
            "Make both from the same model, for example with plan(model).",
        ],
    ),
    (
        "freeze in a mode that there is not",
        lambda model: ft.freeze(model, "trunk", mode="train"),
        ["mode='train' is not one of the 2 modes.", *MODES],
    ),
    (
        "a frozen use in a mode that there is not",
        lambda model: ft.Frozen(model.head, mode=True),
        ["mode=True is not one of the 2 modes.", *MODES],
    ),
    (
        "a typo",
        lambda model: ft.freeze(model, "trunk", "haed"),
        ["'haed' matches none of the 8 parameters.", "Closest paths:", "  head", EMPTY_FIX],
    ),
    (
        "a number",
        lambda model: ft.freeze(model, 3),
        [
            "3 is of type int; a selector is a string, a selector value, or a module or parameter of the model.",
            "Write a path: freeze(model, 'encoder').",
        ],
    ),
    (
        "a list of selectors",
        lambda model: ft.freeze(model, ["trunk", "head"]),
        [
            "['trunk', 'head'] is of type list; a selector is a string, a selector value, "
            "or a module or parameter of the model.",
            "Pass several selectors one by one: freeze(model, *selectors).",
        ],
    ),
    (
        "a class in place of of_type",
        lambda model: ft.freeze(model, nn.Linear),
        [
            "Linear is a class; a selector is a string, a selector value, or a module or parameter of the model.",
            "Select by type: freeze(model, of_type(Linear)).",
        ],
    ),
    (
        "a function in place of where",
        lambda model: ft.freeze(model, lambda p: p.ndim == 1),
        [
            "<lambda> is a function; a selector is a string, a selector value, or a module or parameter of the model.",
            "Select by a condition: freeze(model, where(lambda p: p.ndim == 1)).",
        ],
    ),
    (
        "named parameters in place of names",
        lambda model: ft.freeze(model, model.head.named_parameters()),
        [
            "('weight', ...) is a name with its tensor; a selector is a string, a selector value, or a module or "
            "parameter of the model.",
            "Pass the name alone: freeze(model, 'weight').",
        ],
    ),
    (
        "a module of another model",
        lambda model: ft.freeze(model, nn.Conv2d(1, 1, 1)),
        ["<Conv2d> matches none of the 8 parameters.", FOREIGN, EMPTY_FIX],
    ),
    (
        "a tensor of another model",
        lambda model: ft.thaw(model, torch.zeros(2, 3)),
        ["<Tensor of shape (2, 3)> matches none of the 8 parameters.", FOREIGN, EMPTY_FIX],
    ),
    (
        "a parameter of another model with the values of one of this",
        lambda model: ft.freeze(model, nn.Parameter(model.head.weight.detach().clone())),
        ["<Parameter of shape (2, 2)> matches none of the 8 parameters.", FOREIGN, EMPTY_FIX],
    ),
    (
        "a class that no module has",
        lambda model: ft.freeze(model, of_type(nn.Conv2d)),
        [
            "of_type(Conv2d) matches none of the 8 parameters.",
            "Classes in the model:",
            "  Linear",
            "  Sequential",
            "  BatchNorm1d",
            "  FrozenLinear",
            EMPTY_FIX,
        ],
    ),
    (
        "another count",
        lambda model: ft.freeze(model, "head", expect=3),
        [
            "'head' selects 2 parameters, but expect=3.",
            "Selected:",
            "  head.weight",
            "  head.bias",
            "Fix the selectors, or pass expect=2 if that is what you want.",
        ],
    ),
    (
        "take back first",
        lambda model: ft.freeze(model, "!head"),
        [
            "'!head' takes back, and there is nothing before it to take back from.",
            "Begin with the whole model: freeze(model, \"**\", '!head').",
        ],
    ),
    (
        "freeze a lazy model",
        lambda model: ft.freeze(_lazy()),
        [
            "'1.weight' is a lazy parameter that has no shape yet.",
            "Run one batch through the model first: model(x); then freeze.",
        ],
    ),
    (
        "a frozen use of a lazy layer",
        lambda model: ft.Frozen(_lazy()),
        [
            "Frozen(Sequential) has a lazy parameter that has no shape yet.",
            "Run one batch through the layer first: layer(x); then Frozen(layer).",
        ],
    ),
    (
        "a frozen use of a scripted layer",
        lambda model: ft.Frozen(_scripted()),
        [
            "Frozen(RecursiveScriptModule) is a scripted module, whose parameters cannot be replaced by constants.",
            "Make the frozen use first, then script what contains it.",
        ],
    ),
    (
        "a frozen use that a library for meta-learning makes again",
        lambda model: type("Inner", (type(model.use),), {})(model.parameters(), root=model),
        [
            "Inner(root=...) makes a frozen use again with arguments of another class.",
            "Freeze the layer itself, in a model of its own: freeze(model, 'path.of.the.layer').",
        ],
    ),
    (
        "a frozen use of a layer that cannot be copied",
        lambda model: ft.frozen_call(uncopyable(), torch.ones(1, 2)),
        [
            "Frozen(Linear) cannot copy the structure of this layer: cannot pickle '_thread.lock' object.",
            "Move the attribute that cannot be copied out of the layer, or freeze the layer itself: freeze(layer).",
        ],
    ),
    (
        "findings",
        lambda model: ft.check(model.head.requires_grad_(False)).raise_if_any(),
        [
            "1 finding.",
            "nothing-trainable",
            "  All 2 parameters are frozen.",
            "  Training moves nothing; backward() raises unless an input requires a gradient.",
            '  Fix: thaw(model, "head"), with the part that is to learn.',
        ],
    ),
]
WRONG_TYPES: list[tuple[str, Callable[[], object], list[str]]] = [
    (
        "a frozen use of a number",
        lambda: ft.Frozen(3),
        [
            "Frozen takes a layer, an nn.Module; this is of type int.",
            "To freeze by name: frostline.torch.freeze(model, 'encoder').",
        ],
    ),
    (
        "a frozen use of a class",
        lambda: ft.Frozen(nn.Linear),
        [
            "Frozen takes a layer, an nn.Module; this is of type type.",
            "To freeze by name: frostline.torch.freeze(model, 'encoder').",
        ],
    ),
    (
        "a frozen call of a function",
        lambda: ft.frozen_call(torch.relu, torch.ones(1)),
        [
            "Frozen takes a layer, an nn.Module; this is of type builtin_function_or_method.",
            "To freeze by name: frostline.torch.freeze(model, 'encoder').",
        ],
    ),
    ("freeze parameters", lambda: ft.freeze([], "x"), ["a model is an nn.Module; this is of type list."]),
    ("trainable of a dict", lambda: ft.trainable({}), ["a model is an nn.Module; this is of type dict."]),
    (
        "guard a tensor",
        lambda: ft.guard(torch.ones(1)).__enter__(),
        ["a model is an nn.Module; this is of type Tensor."],
    ),
    (
        "check with a schedule",
        lambda: ft.check(nn.Linear(1, 1), ["adam"]),
        ["check(model, optimizer) takes a torch.optim.Optimizer or several; this is of type str."],
    ),
]
