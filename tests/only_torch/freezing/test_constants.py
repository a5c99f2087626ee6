"""What was constant before frostline came stays constant, unless it is meant (L13)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from torch import nn

import frostline.torch as ft
from frostline import Plan, glob, of_type, regex, where
from frostline.errors import ConstantError
from only_torch.bits import training
from only_torch.field.evidence import state
from only_torch.freezing.constant_models import BODY, CONSTANT, HEAD, Detector, FrozenByHand, Positions
from only_torch.odd_layers import IntegerWeight, TiedPair

Make = Callable[[], nn.Module]
each_model = pytest.mark.parametrize(("make", "constant"), CONSTANT.items(), ids=[make.__name__ for make in CONSTANT])


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@each_model
class TestThaw:
    def test_of_everything_leaves_it(self, make: Make, constant: str) -> None:
        model = make()
        ft.freeze(model)
        ft.thaw(model)
        assert trained(model) == BODY | HEAD
        assert list(ft.frozen(model)) == [constant]
        assert training(model.train()) == {name for name, _ in model.named_modules()}

    def test_without_any_freeze_leaves_it(self, make: Make, constant: str) -> None:
        model = make()
        assert ft.thaw(model).plan.frozen == {constant}
        assert trained(model) == BODY | HEAD

    @pytest.mark.parametrize(
        "selectors",
        [("**",), ("{table,head}",), ("table*", "head"), (regex(".*"),), (where(lambda p: p.size > 0),), (glob("**"),)],
        ids=str,
    )
    def test_of_many_leaves_it(self, make: Make, constant: str, selectors: tuple[object, ...]) -> None:
        model = make()
        ft.freeze(model)
        ft.thaw(model, *selectors)
        assert constant not in trained(model)
        assert trained(model) >= HEAD

    def test_by_its_own_path_thaws_it(self, make: Make, constant: str) -> None:
        for named in (constant, glob(constant), glob(constant) | glob("head"), glob(constant) - glob("head")):
            model = make()
            ft.freeze(model)
            ft.thaw(model, named)
            assert constant in trained(model)

    def test_as_an_object_thaws_it(self, make: Make, constant: str) -> None:
        model = make()
        ft.thaw(model, model.get_parameter(constant))
        assert trained(model) == BODY | HEAD | {constant}

    def test_beside_others_thaws_it_by_its_own_path(self, make: Make, constant: str) -> None:
        model = make()
        ft.freeze(model)
        ft.thaw(model, "head", constant)
        assert trained(model) == HEAD | {constant}

    def test_thaws_it_if_constants_are_meant(self, make: Make, constant: str) -> None:
        model = make()
        handle = ft.thaw(model, constants=True)
        assert trained(model) == BODY | HEAD | {constant}
        handle.undo()
        assert trained(model) == BODY | HEAD

    def test_that_meant_it_is_remembered(self, make: Make, constant: str) -> None:
        """It is no constant any more, until the thaw is undone."""
        model = make()
        meant = ft.thaw(model, constant)
        ft.freeze(model)
        ft.thaw(model)
        assert trained(model) == BODY | HEAD | {constant}
        meant.undo()
        assert trained(model) == BODY | HEAD

    def test_undone_gives_back_what_was_there(self, make: Make, constant: str) -> None:
        model = make()
        before = state(model)
        handles = [ft.freeze(model), ft.thaw(model), ft.thaw(model, constant), ft.freeze(model, "head")]
        for handle in handles:
            handle.undo()
        assert state(model) == before

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
    def test_of_a_copy_leaves_it(self, make: Make, constant: str, copied: Callable[[nn.Module], nn.Module]) -> None:
        model = make()
        ft.freeze(model)
        other = copied(model)
        ft.thaw(other)
        assert trained(other) == BODY | HEAD
        ft.thaw(other, constant)
        assert constant in trained(copied(other))

    def test_of_nothing_else_is_an_error(self, make: Make, constant: str) -> None:
        model = make()
        ft.freeze(model)
        before = state(model)
        with pytest.raises(ConstantError) as caught:
            ft.thaw(model, "table*")
        assert str(caught.value).split("\n") == [
            "thaw(model, 'table*') names 1 parameter, and nothing that trained before it was frozen here:",
            f"  {constant}",
            "Say that it is meant: thaw(model, 'table*', constants=True).",
        ]
        assert state(model) == before
        ft.thaw(model, "table*", constants=True)
        assert trained(model) == {constant}


class TestPlan:
    @each_model
    def test_leaves_it(self, make: Make, constant: str) -> None:
        model = make()
        ft.freeze(model)
        change = ft.follow(model, Plan(frozenset(HEAD), frozenset(BODY | {constant})))
        assert (change.freeze, change.thaw) == (frozenset(), frozenset(BODY))
        assert trained(model) == BODY

    @each_model
    def test_thaws_it_if_constants_are_meant(self, make: Make, constant: str) -> None:
        model = make()
        change = ft.follow(model, Plan(frozenset(HEAD | BODY), frozenset({constant})), constants=True)
        assert change.thaw == {constant}
        assert trained(model) == {constant}

    @each_model
    def test_of_the_model_itself_changes_nothing(self, make: Make, constant: str) -> None:
        for prepare in (ft.freeze, ft.thaw, lambda m: ft.thaw(m, constant), lambda m: ft.thaw(m, constants=True)):
            model = make()
            prepare(model)
            plan = ft.plan(model)
            assert not ft.follow(model, plan)
            assert ft.plan(model) == plan
            ft.freeze(model)
            ft.follow(model, plan)
            assert ft.plan(model) == plan

    @each_model
    def test_that_was_followed_to_the_letter_is_followed_again(self, make: Make, constant: str) -> None:
        model = make()
        plan = Plan(frozenset(HEAD | BODY), frozenset({constant}))
        ft.follow(model, plan, constants=True)
        assert not ft.follow(model, plan)
        assert ft.plan(model) == plan

    def test_may_freeze_it(self) -> None:
        model = Positions()
        ft.follow(model, Plan(frozenset({"table"} | BODY), frozenset(HEAD)))
        assert trained(model) == HEAD
        assert training(model.train()) == {"", "head"}


class TestBefore:
    def test_is_the_flag_at_the_first_freeze_and_not_a_later_one(self) -> None:
        model = FrozenByHand()
        ft.freeze(model, "body")
        model.body.requires_grad_(True)
        ft.freeze(model)
        ft.thaw(model)
        assert trained(model) == BODY | HEAD

    def test_is_the_flag_now_for_what_was_never_frozen_here(self) -> None:
        model = Positions()
        ft.freeze(model, "body")
        model.head.requires_grad_(False)
        ft.thaw(model)
        assert trained(model) == BODY

    def test_holds_for_all_names_of_a_tied_parameter(self) -> None:
        for name in ("into.weight", "out.weight"):
            model = TiedPair()
            model.into.weight.requires_grad_(False)
            ft.freeze(model)
            ft.thaw(model)
            assert trained(model) == {"into.bias", "out.bias"}
            ft.thaw(model, name)
            assert trained(model) == {"into.weight", "into.bias", "out.bias"}

    def test_a_model_frozen_by_hand_is_thawed_by_its_own_words(self) -> None:
        """The error's fix is a cure."""
        model = Positions().requires_grad_(False)
        with pytest.raises(ConstantError):
            ft.thaw(model, "head")
        ft.thaw(model, "head", constants=True)
        assert trained(model) == HEAD

    def test_a_module_of_constants_alone_is_not_held_after_a_thaw(self) -> None:
        model = Detector()
        ft.freeze(model)
        assert training(model.train()) == set()
        ft.thaw(model, "table", "head")
        assert training(model.train()) == {"", "table", "head"}


class TestIntegers:
    def test_are_frozen_parameters(self) -> None:
        model = nn.Sequential(IntegerWeight())
        assert sorted(ft.frozen(model)) == ["0.weight"]
        assert sorted(ft.trainable(model)) == ["0.scale"]
        assert ft.plan(model) == Plan(frozenset({"0.weight"}), frozenset({"0.scale"}))
        assert ft.report(model).to_dict()["totals"]["frozen_bytes"] == 16

    def test_are_selected_as_others_are(self) -> None:
        model = nn.Sequential(IntegerWeight(), nn.Linear(4, 4))
        handle = ft.freeze(model, where(lambda p: p.dtype == "int8"), expect=1)
        assert handle.plan.frozen == {"0.weight"}
        assert ft.freeze(model, of_type(IntegerWeight), expect=2).plan.frozen == {"0.weight", "0.scale"}

    def test_are_left_out_of_a_thaw(self) -> None:
        model = nn.Sequential(IntegerWeight())
        for options in ({}, {"constants": True}):
            with ft.freeze(model), ft.thaw(model, **options) as handle:
                assert handle.plan.frozen == {"0.weight"}
                assert trained(model) == {"0.scale"}

    def test_cannot_be_thawed(self) -> None:
        model = nn.Sequential(IntegerWeight())
        for options in ({}, {"constants": True}):
            with pytest.raises(ConstantError) as caught:
                ft.thaw(model, "0.weight", **options)
            assert str(caught.value).split("\n") == [
                "thaw(model, '0.weight') names 1 parameter, and nothing that can have a gradient:",
                "  0.weight: int8",
                "Thaw floating parameters, for example those of an adapter.",
            ]

    def test_are_left_alone_by_a_plan(self) -> None:
        model = nn.Sequential(IntegerWeight())
        plan = Plan(frozenset(), frozenset({"0.weight", "0.scale"}))
        for constants in (False, True):
            assert not ft.follow(model, plan, constants=constants)
            assert trained(model) == {"0.scale"}

    def test_hold_their_module_when_all_of_it_is_frozen(self) -> None:
        model = nn.Sequential(IntegerWeight(), nn.Linear(4, 4))
        ft.freeze(model, "0.scale")
        assert training(model.train()) == {"", "1"}
