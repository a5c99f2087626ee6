"""What provokes each kind of finding, with its whole text, and models without a finding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn, optim
from torch.nn.utils import prune

import frostline.torch as ft

Optimizers = optim.Optimizer | list[optim.Optimizer] | None


def net() -> nn.Module:
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.1)))
    model.add_module("head", nn.Linear(4, 2))
    return model


def stepped(model: nn.Module) -> optim.Optimizer:
    optimizer = optim.AdamW(model.parameters())
    model(torch.linspace(-1, 1, 12).reshape(3, 4)).square().sum().backward()
    optimizer.step()
    return optimizer


def clean(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk")
    return stepped(model)


def clean_with_everything_trainable(model: nn.Module) -> Optimizers:
    return stepped(model)


def clean_with_two(model: nn.Module) -> Optimizers:
    return [optim.AdamW(model.trunk.parameters()), optim.SGD(model.head.parameters(), 0.1)]


def clean_with_what_is_trainable(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk")
    return optim.AdamW(ft.trainable(model).values())


def clean_use(model: nn.Module) -> Optimizers:
    model.trunk = ft.Frozen(model.trunk)
    model.train()
    return stepped(model)


def clean_in_part(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk[0]")
    return optim.AdamW(model.parameters())


def clean_tied(model: nn.Module) -> Optimizers:
    model.add_module("again", nn.Linear(4, 2))
    model.again.weight = model.head.weight
    return optim.AdamW(model.parameters())


def clean_thawed_since(model: nn.Module) -> Optimizers:
    """What was thawed after the last backward has no gradient yet."""
    ft.freeze(model, "trunk")
    optimizer = stepped(model)
    ft.thaw(model, "trunk")
    return optimizer


def clean_undone_since(model: nn.Module) -> Optimizers:
    handle = ft.freeze(model, "trunk[0]")
    optimizer = stepped(model)
    handle.undo()
    return optimizer


def clean_followed_since(model: nn.Module) -> Optimizers:
    plan = ft.plan(model)
    ft.freeze(model, "head.bias")
    optimizer = stepped(model)
    ft.follow(model, plan)
    return optimizer


def clean_bound(model: nn.Module) -> Optimizers:
    optimizer = stepped(model)
    ft.bind(optimizer, model, "trunk")
    return optimizer


def clean_part_bound(model: nn.Module) -> Optimizers:
    optimizer = optim.AdamW(model.parameters())
    ft.bind(optimizer, model.head)
    return optimizer


def clean_bound_with_a_new_module(model: nn.Module) -> Optimizers:
    """The binding follows it before the next step."""
    optimizer = optim.AdamW(model.trunk.parameters())
    ft.bind(optimizer, model, "trunk")
    model.head.requires_grad_(False)
    model.trunk[0] = nn.Linear(4, 4).requires_grad_(False)
    optimizer.param_groups[0]["params"][:2] = []
    return optimizer


def clean_follow(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk", mode="follow")
    model.train()
    return optim.AdamW(model.parameters())


CLEAN = [
    clean,
    clean_with_everything_trainable,
    clean_with_two,
    clean_with_what_is_trainable,
    clean_use,
    clean_in_part,
    clean_tied,
    clean_follow,
    clean_bound,
    clean_part_bound,
    clean_bound_with_a_new_module,
    clean_thawed_since,
    clean_undone_since,
    clean_followed_since,
]


def nothing_trainable(model: nn.Module) -> Optimizers:
    ft.freeze(model)
    return None


def partly_frozen_norm(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk[1].weight")
    return None


def norm_frozen_by_hand(model: nn.Module) -> Optimizers:
    model.trunk.requires_grad_(False).eval()
    return None


def plain_norm_frozen_by_hand(model: nn.Module) -> Optimizers:
    model.trunk[1] = nn.InstanceNorm1d(4, track_running_stats=True)
    model.trunk.requires_grad_(False)
    return None


def spectral_norm_frozen_by_hand(model: nn.Module) -> Optimizers:
    model.trunk = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)).requires_grad_(False)
    return None


def mode_by_hand(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk")
    model.trunk[2].training = True
    return None


def stale_gradient(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk")
    model.trunk[0].bias.grad = torch.zeros(4)
    return None


def attribute_of_the_model(model: nn.Module) -> Optimizers:
    model.requires_grad = False
    return None


def attribute_of_modules(model: nn.Module) -> Optimizers:
    for module in model.modules():
        if module is not model:
            module.requires_grad = False
    return None


def misspelt(model: nn.Module) -> Optimizers:
    model.head.weight.require_grad = False
    return None


def unowned(model: nn.Module) -> Optimizers:
    return optim.AdamW(model.trunk.parameters())


def one_unowned(model: nn.Module) -> Optimizers:
    return optim.AdamW([p for p in model.parameters() if p is not model.head.bias])


def many_unowned(model: nn.Module) -> Optimizers:
    return optim.AdamW([model.trunk[0].weight])


def owned_twice(model: nn.Module) -> Optimizers:
    return [optim.AdamW(model.parameters()), optim.AdamW(model.head.parameters())]


def owned_in_two_groups(model: nn.Module) -> Optimizers:
    optimizer = optim.AdamW(model.parameters())
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": [model.head.bias]})
    return optimizer


def foreign(model: nn.Module) -> Optimizers:
    optimizer = optim.AdamW(model.parameters())
    model.head = nn.Linear(4, 2).requires_grad_(False)
    return optimizer


def many_foreign(model: nn.Module) -> Optimizers:
    return optim.AdamW([*model.parameters(), *(nn.Parameter(torch.ones(size)) for size in range(1, 6))])


def idle(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk")
    return [optim.SGD(model.trunk.parameters(), 0.1), optim.AdamW(model.head.parameters())]


def leftover(model: nn.Module) -> Optimizers:
    optimizer = stepped(model)
    ft.freeze(model, "trunk[0]")
    return optimizer


def thawed_by_hand(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk[0].weight")
    model.requires_grad_(True)
    return None


def tied_and_thawed_by_hand(model: nn.Module) -> Optimizers:
    model.add_module("again", nn.Linear(4, 2))
    model.again.weight = model.head.weight
    ft.freeze(model, "again.weight")
    model.again.weight.requires_grad = True
    return None


def followed_and_thawed_by_hand(model: nn.Module) -> Optimizers:
    ft.follow(model, ft.plan(model).freeze({"trunk.0.bias", "trunk.0.weight"}))
    model.trunk[0].bias.requires_grad_(True)
    ft.follow(model, ft.plan(model))
    model.trunk[0].weight.requires_grad_(True)
    return None


def held_with_an_adapter(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk")
    model.trunk.add_module("adapter", nn.Linear(4, 4))
    return None


def held_to_follow_with_an_adapter(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk", mode="follow")
    model.trunk.add_module("adapter", nn.Linear(4, 4))
    return None


def held_with_another_head(model: nn.Module) -> Optimizers:
    ft.freeze(model)
    model.head = nn.Linear(4, 3)
    return None


def pruned(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk[0].weight")
    prune.l1_unstructured(model.trunk[0], "weight", 0.5)
    return None


def parametrized(model: nn.Module) -> Optimizers:
    ft.freeze(model, "trunk[0]")
    nn.utils.parametrizations.weight_norm(model.trunk[0])
    return None


def no_parameter_any_more(model: nn.Module) -> Optimizers:
    nn.utils.parametrizations.weight_norm(model.trunk[0])
    ft.freeze(model, "trunk")
    nn.utils.parametrize.remove_parametrizations(model.trunk[0], "weight")
    return None


def unused(model: nn.Module) -> Optimizers:
    model.trunk(torch.ones(3, 4)).sum().backward()
    return optim.AdamW(model.parameters())


def detached(model: nn.Module) -> Optimizers:
    model.head(model.trunk(torch.ones(3, 4)).detach()).sum().backward()
    return optim.AdamW(model.parameters())


def unused_since_its_thaw(model: nn.Module) -> Optimizers:
    optimizer = clean_thawed_since(model)
    for _ in range(2):
        model.head(torch.ones(3, 4)).sum().backward()
    return optimizer


def unused_since_gradients_were_dropped(model: nn.Module) -> Optimizers:
    optimizer = clean_thawed_since(model)
    optimizer.zero_grad()
    model.head(torch.ones(3, 4)).sum().backward()
    return optimizer


def frozen_by_hand(model: nn.Module) -> Optimizers:
    ft.thaw(model, "head")
    model.head.bias.requires_grad_(False)
    return None


def constant(model: nn.Module) -> Optimizers:
    model.trunk[0].bias.requires_grad_(False)
    ft.thaw(model, "trunk")
    return None


def constants(model: nn.Module) -> Optimizers:
    model.head.requires_grad_(False)
    ft.follow(model, ft.plan(model).thaw({"head.weight", "head.bias"}))
    return None


STATISTICS = "  Its running statistics move whenever it is called in training mode."
NORM = [
    "moving-statistics: trunk.1",
    "  BatchNorm1d is frozen in part or by hand, and is not held.",
    STATISTICS,
    "  Fix: freeze(model, 'trunk.1') freezes all of it.",
]
ATTRIBUTE = [
    "  requires_grad was set on a module, where it is an attribute like any other.",
    "  It freezes nothing.",
    "  Fix: freeze(model, ...) with its path; del module.requires_grad.",
]
UNOWNED = [
    "  They get gradients and never move.",
    '  Fix: optimizer.add_param_group({"params": [...]}) with these parameters, or freeze them.',
]
TWICE = [
    "  The same parameter is in two parameter groups or two optimizers.",
    "  It is moved twice a step.",
    "  Fix: keep it in one: torch.optim.AdamW(trainable(model).values()).",
]
FOREIGN = [
    "  A module was replaced after the optimizer was made, so what replaced it never moves.",
    "  Fix: make the optimizer after the last change of the model.",
]

BY_HAND = "  They were frozen, and requires_grad was set to True since."
WHILE = "  They train, while frozen modules around them stay in evaluation mode."
HELD = [
    "  Its dropout is off and its statistics stand still.",
    "  Fix: thaw(model, ...) with the path of what trains; or freeze it again.",
]
MOVED = [
    "  They are what became of frozen parameters: the model was pruned, parametrized or converted since.",
    "  What has them now is not held, and may train.",
]
UNUSED = ["  They never move: they are not used, or something between them and the loss is detached."]
LEFT = "  A thaw of many, a plan and a schedule take constants for what they were."

FOUND: list[tuple[Callable[[nn.Module], Optimizers], list[str]]] = [
    (
        nothing_trainable,
        [
            "nothing-trainable",
            "  All 6 parameters are frozen.",
            "  Training moves nothing; backward() raises unless an input requires a gradient.",
            '  Fix: thaw(model, "head"), with the part that is to learn.',
        ],
    ),
    (partly_frozen_norm, NORM),
    (norm_frozen_by_hand, NORM),
    (
        plain_norm_frozen_by_hand,
        [
            "moving-statistics: trunk.1",
            "  InstanceNorm1d is frozen in part or by hand, and is not held.",
            STATISTICS,
            "  Fix: freeze(model, 'trunk.1') freezes all of it.",
        ],
    ),
    (
        spectral_norm_frozen_by_hand,
        [
            "moving-statistics: trunk.parametrizations.weight.0",
            "  _SpectralNorm is frozen in part or by hand, and is not held.",
            STATISTICS,
            "  Fix: freeze(model, 'trunk.parametrizations.weight.0') freezes all of it.",
        ],
    ),
    (
        mode_by_hand,
        [
            "mode-by-hand: trunk.2",
            "  Dropout is frozen, but its training flag was set to True.",
            "  Dropout is active in it and statistics move.",
            "  Fix: do not write .training on 'trunk.2'; call model.train().",
        ],
    ),
    (
        stale_gradient,
        [
            "stale-gradient: trunk.0.bias",
            "  They are frozen and still have a gradient.",
            "  Optimizers look at .grad and never at requires_grad: the next step moves them.",
            "  Fix: freeze(model, ...) drops it; by hand: parameter.grad = None.",
        ],
    ),
    (attribute_of_the_model, ["plain-attribute: (the model itself)", *ATTRIBUTE]),
    (attribute_of_modules, ["plain-attribute: trunk, trunk.0, trunk.1, trunk.2 and 1 more", *ATTRIBUTE]),
    (
        misspelt,
        [
            "plain-attribute: head.weight",
            "  A misspelt requires_grad was set on a parameter.",
            "  It freezes nothing.",
            "  Fix: freeze(model, ...) with its path.",
        ],
    ),
    (
        unowned,
        [
            "unowned: head.weight, head.bias",
            "  2 trainable parameters are in no optimizer that was given.",
            *UNOWNED,
        ],
    ),
    (
        one_unowned,
        ["unowned: head.bias", "  1 trainable parameter is in no optimizer that was given.", *UNOWNED],
    ),
    (
        many_unowned,
        [
            "unowned: trunk.0.bias, trunk.1.weight, trunk.1.bias, head.weight and 1 more",
            "  5 trainable parameters are in no optimizer that was given.",
            *UNOWNED,
        ],
    ),
    (owned_twice, ["owned-twice: head.weight, head.bias", *TWICE]),
    (owned_in_two_groups, ["owned-twice: head.bias", *TWICE]),
    (foreign, ["foreign", "  2 parameters of the optimizer are not in the model: (2, 4), (2,).", *FOREIGN]),
    (
        many_foreign,
        [
            "foreign",
            "  5 parameters of the optimizer are not in the model: (1,), (2,), (3,), (4,) and 1 more.",
            *FOREIGN,
        ],
    ),
    (
        idle,
        [
            "idle-optimizer",
            "  All parameters of SGD are frozen.",
            "  Its steps do nothing, and GradScaler.step raises for lack of inf checks.",
            "  Fix: leave its step out, or thaw what it is for.",
        ],
    ),
    (
        leftover,
        [
            "leftover-state: trunk.0.weight, trunk.0.bias",
            "  They are frozen and 160 bytes of optimizer state are kept for them.",
            "  It takes memory, and old moments act again when they are thawed.",
            "  Fix: optimizer.state.pop(parameter), if they stay frozen.",
        ],
    ),
    (
        thawed_by_hand,
        [
            "thawed-by-hand: trunk.0.weight",
            BY_HAND,
            WHILE,
            "  Fix: freeze(model, 'trunk.0.weight') again; or thaw(model, 'trunk.0.weight'), if they are to train.",
        ],
    ),
    (
        tied_and_thawed_by_hand,
        [
            "thawed-by-hand: head.weight",
            BY_HAND,
            WHILE,
            "  Fix: freeze(model, 'head.weight') again; or thaw(model, 'head.weight'), if they are to train.",
        ],
    ),
    (
        followed_and_thawed_by_hand,
        [
            "thawed-by-hand: trunk.0.weight",
            BY_HAND,
            WHILE,
            "  Fix: freeze(model, 'trunk.0.weight') again; or thaw(model, 'trunk.0.weight'), if they are to train.",
        ],
    ),
    (
        held_with_an_adapter,
        [
            "held-but-trains: trunk",
            "  Sequential is held as a frozen module, and something in it trains.",
            *HELD,
        ],
    ),
    (
        held_to_follow_with_an_adapter,
        [
            "held-but-trains: trunk",
            "  Sequential is held as a frozen module, and something in it trains.",
            *HELD,
        ],
    ),
    (
        held_with_another_head,
        [
            "held-but-trains: (the model itself)",
            "  Sequential is held as a frozen module, and something in it trains.",
            *HELD,
        ],
    ),
    (
        pruned,
        ["moved-claims: trunk.0.weight_orig", *MOVED, "  Fix: freeze(model, 'trunk.0') again."],
    ),
    (
        parametrized,
        [
            "moved-claims: trunk.0.parametrizations.weight.original0, trunk.0.parametrizations.weight.original1",
            *MOVED,
            "  Fix: freeze(model, 'trunk.0') again.",
        ],
    ),
    (
        no_parameter_any_more,
        [
            "lost-claims: trunk.0.weight",
            "  It was frozen as a parameter, and is a plain tensor now.",
            "  No optimizer can train it, and nothing can thaw it.",
            "  Fix: make a parameter of it, module.weight = nn.Parameter(module.weight), and freeze that.",
        ],
    ),
    (
        frozen_by_hand,
        [
            "frozen-by-hand: head.bias",
            "  They were to train, and requires_grad was set to False since.",
            "  The next thaw, plan or phase of a schedule makes them train again.",
            "  Fix: freeze(model, 'head.bias').",
        ],
    ),
    (
        constant,
        [
            "constants: trunk.0.bias",
            "  1 parameter did not train before anything was frozen here, and was left alone.",
            LEFT,
            "  Fix: thaw(model, 'trunk.0.bias'), if it is to train; or freeze(model, 'trunk.0.bias').",
        ],
    ),
    (
        constants,
        [
            "constants: head.weight, head.bias",
            "  2 parameters did not train before anything was frozen here, and were left alone.",
            LEFT,
            "  Fix: thaw(model, 'head.weight'), if it is to train; or freeze(model, 'head.weight').",
        ],
    ),
    (
        unused,
        [
            "no-gradient: head.weight, head.bias",
            "  2 of 6 trainable parameters got no gradient in the last backward.",
            *UNUSED,
            "  Fix: use them in the loss; or freeze(model, 'head.weight').",
        ],
    ),
    *(
        (
            provoke,
            [
                "no-gradient: trunk.0.weight, trunk.0.bias, trunk.1.weight, trunk.1.bias",
                "  4 of 6 trainable parameters got no gradient in the last backward.",
                *UNUSED,
                "  Fix: use them in the loss; or freeze(model, 'trunk.0.weight').",
            ],
        )
        for provoke in (detached, unused_since_its_thaw, unused_since_gradients_were_dropped)
    ),
]
