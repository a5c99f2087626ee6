"""A bound optimizer holds the trainable parameters, keeps moments by name, and its schedulers stay in step."""

from __future__ import annotations

import copy
import gc
import itertools
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

import frostline.torch as ft
from frostline import NoMatchError, Rule, UnsupportedError, layerwise
from frostline.errors import BindError

ADAMW = {"lr": 0.1, "weight_decay": 0.1}


def net() -> nn.Sequential:
    torch.default_generator.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))


def adamw(model: nn.Module, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), **{**ADAMW, **options})


def step(model: nn.Module, *optimizers: torch.optim.Optimizer, seed: int = 0) -> None:
    batch = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    for optimizer in optimizers:
        optimizer.zero_grad()
    model(batch).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()


def inside(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[set[str]]:
    names = {id(p): path for path, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in optimizer.param_groups]


def bits(state: dict[str, Any]) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in state.items()}


def moments(optimizer: torch.optim.Optimizer, tensor: torch.Tensor) -> dict[str, bytes]:
    return bits(optimizer.state[tensor])


class TestWhoIsInIt:
    def test_freezing_takes_out_and_thawing_brings_back(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        handle = ft.freeze(model, "[:2]")
        assert inside(optimizer, model) == [{"2.weight", "2.bias"}]
        ft.thaw(model, "[1]")
        assert inside(optimizer, model) == [{"1.weight", "1.bias", "2.weight", "2.bias"}]
        handle.undo()
        assert len(inside(optimizer, model)[0]) == 6

    def test_a_parameter_that_was_never_given_joins_when_it_thaws(self) -> None:
        model = net()
        ft.freeze(model, "**", "![2]")
        optimizer = torch.optim.AdamW(ft.trainable(model).values(), **ADAMW)
        ft.bind(optimizer, model)
        ft.thaw(model, "[1].weight")
        step(model, optimizer)
        assert inside(optimizer, model) == [{"1.weight", "2.weight", "2.bias"}]
        assert set(optimizer.state) == {model[1].weight, model[2].weight, model[2].bias}

    def test_without_binding_it_would_never_move(self) -> None:
        """The negative control: a thaw that no optimizer hears of."""
        model = net()
        ft.freeze(model, "**", "![2]")
        optimizer = torch.optim.AdamW(ft.trainable(model).values(), **ADAMW)
        before = model[1].weight.clone()
        ft.thaw(model, "[1].weight")
        step(model, optimizer)
        assert torch.equal(model[1].weight, before)

    def test_flags_that_were_set_by_hand_are_seen_at_the_next_step(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        model[0].requires_grad_(False)
        step(model, optimizer)
        assert inside(optimizer, model) == [{"1.weight", "1.bias", "2.weight", "2.bias"}]

    def test_tensors_that_were_replaced_keep_their_moments(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model)
        step(model, optimizer)
        before = moments(optimizer, model[0].weight)
        model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
        ft.freeze(model, "[2]")
        assert inside(optimizer, model) == [{"0.weight", "0.bias", "1.weight", "1.bias"}]
        assert moments(optimizer, model[0].weight) == before

    def test_parameters_of_others_stay_in_their_groups(self) -> None:
        model, temperature = net(), nn.Parameter(torch.ones(()))
        optimizer = torch.optim.AdamW([temperature, *model.parameters()], **ADAMW)
        ft.bind(optimizer, model)
        ft.freeze(model)
        assert [p is temperature for p in optimizer.param_groups[0]["params"]] == [True]

    def test_named_parameters_keep_their_names(self) -> None:
        model = net()
        optimizer = torch.optim.AdamW(model.named_parameters(), **ADAMW)
        ft.bind(optimizer, model)
        ft.freeze(model, "[:2]")
        assert optimizer.param_groups[0]["param_names"] == ["2.weight", "2.bias"]

    def test_several_optimizers_each_for_its_part(self) -> None:
        model = net()
        first = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
        rest = torch.optim.AdamW(model[1:].parameters(), **ADAMW)
        ft.bind(first, model, "[0]")
        ft.bind(rest, model, "[1:]")
        ft.freeze(model, "**.bias")
        assert inside(first, model) == [{"0.weight"}]
        assert inside(rest, model) == [{"1.weight", "2.weight"}]

    def test_frozen_uses_are_never_in_it(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), ft.Frozen(nn.Linear(2, 2)))
        binding = ft.bind(adamw(model), model)
        assert binding.names == ("0.weight", "0.bias")

    def test_it_lives_as_long_as_the_optimizer(self) -> None:
        model = net()
        optimizer = adamw(model)
        watched = weakref.ref(ft.bind(optimizer, model))
        gc.collect()
        assert watched() is not None
        del optimizer
        gc.collect()
        assert watched() is None


class TestMoments:
    @pytest.mark.parametrize("kept", ["keep", "cpu"])
    @pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}, {"amsgrad": True}])
    def test_they_are_there_again_bit_for_bit(self, kept: Any, options: dict[str, bool]) -> None:
        model = net()
        optimizer = adamw(model, **options)
        ft.bind(optimizer, model, moments=kept)
        for seed in range(3):
            step(model, optimizer, seed=seed)
        before = {path: moments(optimizer, p) for path, p in model[:2].named_parameters()}
        handle = ft.freeze(model, "[:2]")
        for seed in range(3):
            step(model, optimizer, seed=seed)
        handle.undo()
        assert {path: moments(optimizer, p) for path, p in model[:2].named_parameters()} == before

    def test_released_they_are_gone_and_start_anew(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model, moments="release")
        step(model, optimizer)
        ft.freeze(model, "[0]").undo()
        assert model[0].weight not in optimizer.state
        step(model, optimizer)
        assert optimizer.state[model[0].weight]["step"].item() == 1.0

    def test_eight_bytes_a_trainable_value_after_any_sequence_of_freezes(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model, moments="release")
        dice = random.Random(0)
        for seed in range(20):
            ft.freeze(model) if dice.random() < 0.1 else ft.thaw(model)
            ft.freeze(model, *dice.sample(["[0]", "[1]", "**.bias", "2.weight"], 2))
            if ft.trainable(model):
                step(model, optimizer, seed=seed)
            held = sum(t.nbytes for state in optimizer.state.values() for t in state.values() if t.dim())
            assert held == 8 * sum(p.numel() for p in ft.trainable(model).values())

    def test_others_are_not_touched(self) -> None:
        alone, model = net(), net()
        ft.freeze(alone, "[0]")
        ft.freeze(model, "[0]")
        lone, bound = adamw(alone), adamw(model)
        ft.bind(bound, model)
        for seed in range(4):
            handle = ft.freeze(model, "[0].weight")
            step(alone, lone, seed=seed)
            step(model, bound, seed=seed)
            handle.undo()
        assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), model.parameters(), strict=True))


class TestRules:
    def test_options_by_selector_the_later_rule_decides(self) -> None:
        model = net()
        optimizer = adamw(model)
        ft.bind(optimizer, model, rules=[Rule("**.bias", weight_decay=0.0), Rule("[0]", lr_scale=0.5)])
        found = [
            (g["lr"], g["weight_decay"], names)
            for g, names in zip(optimizer.param_groups, inside(optimizer, model), strict=True)
        ]
        assert found == [
            (0.1, 0.1, {"1.weight", "2.weight"}),
            (0.05, 0.1, {"0.weight"}),
            (0.05, 0.0, {"0.bias"}),
            (0.1, 0.0, {"1.bias", "2.bias"}),
        ]

    def test_layer_wise_decay(self) -> None:
        model = net()
        optimizer = adamw(model, lr=1.0)
        ft.freeze(model, "[0]")
        ft.bind(optimizer, model, rules=layerwise(["[0]", "[1]", "[2]"], decay=0.5))
        ft.thaw(model)
        assert [g["lr"] for g in optimizer.param_groups if g["params"]] == [0.25, 0.5, 1.0]

    def test_a_thawed_parameter_joins_its_own_group(self) -> None:
        model = net()
        ft.freeze(model, "[:2]")
        optimizer = torch.optim.AdamW(model[2].parameters(), **ADAMW)
        ft.bind(optimizer, model, rules=[Rule("[0]", lr_scale=0.1)])
        ft.thaw(model, "[0]")
        assert inside(optimizer, model) == [{"2.weight", "2.bias"}, {"0.weight", "0.bias"}]

    def test_schedulers_stay_in_step(self) -> None:
        model = net()
        optimizer = adamw(model, lr=1.0)
        ft.bind(optimizer, model, rules=[Rule("[0]", lr_scale=0.5)])
        handle = ft.freeze(model, "[0]")
        scheduler = LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        for seed in range(2):
            step(model, optimizer, seed=seed)
            scheduler.step()
        handle.undo()
        assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.125]
        assert inside(optimizer, model)[1] == {"0.weight", "0.bias"}

    def test_a_scheduler_from_before_goes_on(self) -> None:
        model = net()
        optimizer = adamw(model, lr=1.0)
        scheduler = CosineAnnealingLR(optimizer, 2)
        ft.bind(optimizer, model)
        ft.freeze(model, "[0]")
        step(model, optimizer)
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


class TestByName:
    @pytest.mark.parametrize(("then", "now"), list(itertools.product(["[0]", "[2]", "**.bias"], repeat=2)))
    def test_moments_of_one_frozen_set_load_into_another(self, then: str, now: str) -> None:
        model = net()
        optimizer = adamw(model)
        binding = ft.bind(optimizer, model)
        step(model, optimizer)
        ft.freeze(model, then)
        step(model, optimizer, seed=1)
        state = copy.deepcopy(binding.state_dict())

        other = net()
        ft.freeze(other, now)
        fresh = ft.bind(torch.optim.AdamW(list(ft.trainable(other).values()), **ADAMW), other)
        fresh.load_state_dict(state)
        ft.thaw(other)

        assert {p: bits(m) for p, m in fresh.state_dict()["state"].items()} == {
            p: bits(m) for p, m in state["state"].items()
        }
        assert len(state["state"]) == 6

    def test_by_position_pytorch_itself_would_mix_them_up(self) -> None:
        """The negative control: the same two runs with PyTorch's own state dict, and not a word."""
        model, other = net(), net()
        for each, frozen in ((model, [0]), (other, [1])):
            for number in frozen:
                each[number].requires_grad_(False)
        same_shapes = [nn.Sequential(*(nn.Linear(3, 3) for _ in range(3))) for _ in range(2)]
        one, two = (adamw(m[i : i + 1]) for m, i in zip(same_shapes, (0, 1), strict=True))
        same_shapes[0](torch.ones(1, 3)).sum().backward()
        one.step()
        two.load_state_dict(one.state_dict())
        assert torch.equal(
            two.state[same_shapes[1][1].weight]["exp_avg"], one.state[same_shapes[0][0].weight]["exp_avg"]
        )

    def test_a_resumed_run_is_the_run(self) -> None:
        def run(cut: int | None) -> list[torch.Tensor]:
            model = net()
            optimizer = adamw(model)
            binding = ft.bind(optimizer, model)
            for number in range(8):
                if number == cut:
                    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(binding.state_dict())
                    model = net()
                    model.load_state_dict(weights)
                    ft.freeze(model, f"[{(number - 1) % 3}]")
                    optimizer = adamw(model, lr=7.0)
                    binding = ft.bind(optimizer, model)
                    binding.load_state_dict(state)
                ft.thaw(model)
                ft.freeze(model, f"[{number % 3}]")
                step(model, optimizer, seed=number)
            return [p.detach() for p in model.parameters()]

        whole = run(None)
        for cut in range(1, 8):
            assert all(torch.equal(a, b) for a, b in zip(run(cut), whole, strict=True))


STATE_FIX = "Save it with binding.state_dict(), from a binding of the same model with the same rules."
REFUSED: list[tuple[str, Callable[[nn.Sequential, torch.optim.Optimizer], object], list[str]]] = [
    (
        "bound twice",
        lambda model, optimizer: [ft.bind(optimizer, model) for _ in range(2)],
        [
            "bind(optimizer, model) binds an optimizer that is bound already, to 6 parameters.",
            "Bind once, and keep the binding that it returns; or end the other one first: binding.release().",
        ],
    ),
    (
        "two optimizers for one parameter",
        lambda model, optimizer: (ft.bind(optimizer, model, "[0]"), ft.bind(adamw(model), model, "0.weight", "[1]")),
        [
            "bind(optimizer, model) would give 1 of 3 parameters to two optimizers.",
            "  0.weight",
            'Say which part each is for, bind(optimizer, model, "generator"); or end the other: binding.release().',
        ],
    ),
    (
        "an option that there is not",
        lambda model, optimizer: ft.bind(torch.optim.Rprop(model.parameters()), model, rules=[Rule("**", decay=1.0)]),
        [
            "Rule('**', decay=1.0) has 1 options that Rprop lacks: decay. It has:",
            "  capturable",
            "  differentiable",
            "  etas",
            "  foreach",
            "  lr",
            "  ... and 2 more",
            "Write lr_scale=0.1 for a factor of the learning rate, and weight_decay=0.0 for an option.",
        ],
    ),
    (
        "rules after a scheduler",
        lambda model, optimizer: (
            LambdaLR(optimizer, lambda _: 1.0),
            ft.bind(optimizer, model, rules=[Rule("[0]", lr_scale=0.1)]),
        ),
        [
            "bind(optimizer, model, rules=...) needs 1 more parameter groups, and a scheduler of this optimizer knows "
            "of 1 only.",
            "Bind first, then make the scheduler: bind(optimizer, model, rules=rules); StepLR(optimizer, n).",
        ],
    ),
    (
        "another word for moments",
        lambda model, optimizer: ft.bind(optimizer, model, moments="drop"),  # type: ignore[arg-type]
        [
            "bind(optimizer, model, moments='drop') is not one of the 3 ways to treat the moments of frozen "
            "parameters:",
            '  "keep"     they stay as they are',
            '  "cpu"      they go to main memory',
            '  "release"  they are dropped, and start at zero after a thaw',
            'Write moments="keep", or leave it out.',
        ],
    ),
    (
        "a state of no optimizer",
        lambda model, optimizer: ft.bind(optimizer, model).load_state_dict({"epoch": 1}),
        [
            "binding.load_state_dict(state) got ['epoch'], and not a state of version 1 that a binding saved.",
            STATE_FIX,
        ],
    ),
    (
        "a state of another model",
        lambda model, optimizer: ft.bind(optimizer, model).load_state_dict(
            (lambda other: ft.bind(adamw(other), other).state_dict())(net()[:2])
        ),
        [
            "binding.load_state_dict(state) got a state of other parameters: 2 missing, 0 unknown.",
            "  missing: 2.bias",
            "  missing: 2.weight",
            STATE_FIX,
        ],
    ),
    (
        "a state of another optimizer",
        lambda model, optimizer: ft.bind(optimizer, model).load_state_dict(
            (lambda other: ft.bind(torch.optim.SGD(other.parameters(), lr=0.1), other).state_dict())(net())
        ),
        [
            "binding.load_state_dict(state) got the state of SGD for AdamW.",
            "Make the optimizer that was saved: torch.optim.SGD(...).",
        ],
    ),
    (
        "a state of other rules",
        lambda model, optimizer: ft.bind(optimizer, model).load_state_dict(
            (lambda other: ft.bind(adamw(other), other, rules=[Rule("[0]", lr_scale=0.5)]).state_dict())(net())
        ),
        [
            "binding.load_state_dict(state) got 2 groups for 1, and 2 of 6 parameters are in another one.",
            "  0.weight",
            "  0.bias",
            STATE_FIX,
        ],
    ),
]


@pytest.mark.parametrize(("act", "lines"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_the_whole_text_of_each_refusal(act: Callable[..., object], lines: list[str]) -> None:
    model = net()
    with pytest.raises(BindError) as caught:
        act(model, adamw(model))
    assert str(caught.value).split("\n") == lines


def test_a_state_that_is_refused_changes_nothing() -> None:
    model = net()
    optimizer = adamw(model)
    binding = ft.bind(optimizer, model)
    step(model, optimizer)
    before = {path: bits(state) for path, state in binding.state_dict()["state"].items()}
    state = copy.deepcopy(binding.state_dict())
    state["shapes"]["0.weight"] = (1, 1)
    state["groups"][0]["lr"] = 9.0
    with pytest.raises(BindError) as caught:
        binding.load_state_dict(state)
    assert str(caught.value).split("\n") == [
        "binding.load_state_dict(state) got moments of 1 parameters of other shapes.",
        "  0.weight: saved (1, 1), in the model (3, 4)",
        STATE_FIX,
    ]
    assert {path: bits(state) for path, state in binding.state_dict()["state"].items()} == before
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_a_rule_for_nothing_and_an_optimizer_of_one_piece() -> None:
    model = net()
    with pytest.raises(NoMatchError):
        ft.bind(adamw(model), model, rules=[Rule("typo", lr_scale=0.1)])
    with pytest.raises(UnsupportedError) as caught:
        ft.bind(torch.optim.LBFGS(model.parameters()), model)
    assert str(caught.value).split("\n") == [
        "bind(LBFGS, model) binds an optimizer that keeps one history for all parameters.",
        "Leave it unbound: frozen parameters are left out of its steps, and its history is dropped when they are.",
    ]
