"""The ledger of claims stays small, and no handle loses its way back."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
from collections.abc import Callable

import pytest
from torch import nn

import frostline.torch as ft
from only_torch.bits import training

PATHS = {"0.weight", "0.bias", "1.weight", "1.bias"}


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def claims(model: nn.Module) -> list[int]:
    """How many claims there are on each parameter that has one."""
    ledgers = [vars(module).get("_frostline", {}) for module in model.modules()]
    return [len(stack.claims) for ledger in ledgers for stack in ledger.values()]


def freeze_and_thaw(model: nn.Module) -> None:
    ft.freeze(model)
    ft.thaw(model)


def freeze_parts_in_turn(model: nn.Module) -> None:
    """As a schedule by hand does."""
    for part in ("0", "1"):
        ft.freeze(model, "**", f"!{part}")
        ft.thaw(model, part)


def freeze_again_and_again(model: nn.Module) -> None:
    ft.freeze(model, "0", mode="follow")
    ft.freeze(model[0])
    ft.freeze(model, "**.bias")


@pytest.mark.parametrize("word", [freeze_and_thaw, freeze_parts_in_turn, freeze_again_and_again])
class TestInEachStep:
    def test_claims_do_not_pile_up(self, word: Callable[[nn.Module], None]) -> None:
        model = net()
        for _ in range(30):
            word(model)
        assert max(claims(model)) <= 2

    def test_pickles_stay_small(self, word: Callable[[nn.Module], None]) -> None:
        model, sizes = net(), []
        for _ in range(3):
            for _ in range(10):
                word(model)
            sizes.append(len(pickle.dumps(model)))
        assert sizes[1:] == sizes[:1] * 2

    def test_a_copy_does_not_bring_its_own(self, word: Callable[[nn.Module], None]) -> None:
        model = net()
        for _ in range(5):
            word(model)
            model = copy.deepcopy(model)
        assert max(claims(model)) <= 2


def test_handles_that_live_keep_theirs() -> None:
    model = net()
    handles = [ft.freeze(model) if n % 2 else ft.thaw(model) for n in range(10)]
    assert claims(model) == [10] * 4
    for handle in handles:
        handle.undo()
    assert claims(model) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_living_handles_are_undone_in_any_order_between_forgotten_ones(order: tuple[int, ...]) -> None:
    """Expected by hand: what is forgotten holds for good, below what was made later."""
    model = net()
    ft.freeze(model, "0.weight")
    handles = [ft.freeze(model, "0")]
    ft.thaw(model, "0.bias")
    handles.append(ft.freeze(model, "**.bias"))
    ft.freeze(model, "1.weight")
    ft.thaw(model, "1.weight")
    handles.append(ft.freeze(model, "1"))
    gc.collect()
    bias = {0: set(), 1: {"0.bias"}, 2: set()}
    gone: set[int] = set()
    for number in order:
        handles[number].undo()
        gone.add(number)
        # 0.weight was frozen and forgotten, 0.bias and 1.weight were thawed and forgotten.
        expected = set().union(*(bias[n] for n in gone))
        if 2 in gone:
            expected |= {"1.weight"}
        if {1, 2} <= gone:
            expected |= {"1.bias"}
        assert trained(model) == expected


def test_a_handle_that_is_copied_with_its_model_undoes_in_the_copy() -> None:
    for copied in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        model = net()
        pair = copied((model, ft.freeze(model, "0")))
        for _ in range(3):
            freeze_and_thaw(pair[0])
        ft.freeze(pair[0])
        pair[1].undo()
        assert trained(pair[0]) == set()
        assert trained(model) == {"1.weight", "1.bias"}
        assert len(claims(pair[0])) == 4


def test_a_block_keeps_its_claim_although_nobody_has_the_handle() -> None:
    model = net()
    with ft.freeze(model, "0"):
        for _ in range(3):
            freeze_and_thaw(model)
        ft.freeze(model, "0")
    assert trained(model) == {"1.weight", "1.bias"}
    assert training(model.train()) == {"", "1"}


def test_a_constant_that_was_meant_is_remembered_when_its_claim_is_merged() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    ft.thaw(model, "0.weight")
    for _ in range(5):
        freeze_and_thaw(model)
    assert trained(model) == PATHS
    assert max(claims(model)) <= 2
