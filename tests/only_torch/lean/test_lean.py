"""What is frozen made cheap, and taken back."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import frostline
import frostline.torch as ft
from only_torch.bits import bits, contents
from only_torch.lean.slimmed import derivatives, slimmed

X = torch.randn(2, 3, 64, 64)
SLIM = {"ConvolutionBackward0.input": 2, "NativeBatchNormBackward0.input": 1, "ReluBackward0.result": 1}


def network() -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    return nn.Sequential(nn.Conv2d(3, 3, 1), body)


def traces(model: nn.Module) -> list[str]:
    """What a lean model has and a plain one has not."""
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if (name == "forward" and value is not None)
        or (name in ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs") and value)
        or "lean" in name
    ]


def test_lean_and_back() -> None:
    model = network()
    ft.freeze(model, "1")
    before, found = traces(model), derivatives(model, X)
    handle = ft.lean(model)
    assert repr(handle) == "Lean(exact=True, memory_budget=None)"
    assert (handle.exact, handle.memory_budget) == (True, None)
    assert derivatives(model, X) == found
    assert slimmed(model(X)) == SLIM
    handle.undo()
    assert repr(handle) == "Lean(exact=True, memory_budget=None, undone)"
    assert slimmed(model(X)) == {}
    handle.undo()
    assert traces(model) == before
    assert derivatives(model, X) == found


def test_within_a_block() -> None:
    model = network()
    ft.freeze(model, "1")
    with ft.lean(model):
        assert slimmed(model(X)) == SLIM
    assert slimmed(model(X)) == {}


def test_a_model_with_nothing_frozen_is_refused_and_left_as_it_was() -> None:
    model = network()
    before = traces(model)
    with pytest.raises(frostline.errors.NothingFrozenError) as caught:
        ft.lean(model)
    assert str(caught.value) == "\n".join(
        [
            "lean(model) finds nothing frozen among 8 parameters.",
            "Only frozen parts can be made cheap, and all of it is trainable.",
            'Freeze first: freeze(model, "encoder"); lean(model).',
        ]
    )
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.expression, again.params) == (str(caught.value), "lean(model)", 8)
    assert traces(model) == before


def test_the_text_of_a_budget_that_cannot_be_met() -> None:
    error = frostline.errors.BudgetError(1000, 1500, 6000)
    assert str(error) == "\n".join(
        [
            "memory_budget=1000 cannot be met: 1500 bytes is the least that can be reached.",
            "Without a budget 6000 bytes are saved for backward; with every frozen block checkpointed,",
            "1500 are left, which trainable parts and the inputs of the blocks need.",
            "Pass memory_budget=1500, freeze more, or make the batch smaller.",
        ]
    )
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.budget, again.reachable, again.plain) == (str(error), 1000, 1500, 6000)


@pytest.mark.parametrize("budget", [0, -1, 1.5, "1 GiB", True])
def test_a_budget_that_is_none_leaves_the_model_as_it_was(budget: object) -> None:
    model = network()
    ft.freeze(model, "1")
    ft.lean(model)
    before = traces(model)
    with pytest.raises(frostline.errors.BudgetValueError):
        ft.lean(model, memory_budget=budget)  # type: ignore[arg-type]
    assert traces(model) == before
    assert slimmed(model(X)) == SLIM


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError):
        ft.lean([1])  # type: ignore[arg-type]


def test_freezing_and_thawing_meanwhile() -> None:
    model = network()
    frozen = ft.freeze(model, "1")
    lean = ft.lean(model)
    thawed = ft.thaw(model, "1[0]")
    for _ in range(3):
        assert slimmed(model(X)) == SLIM | {"ConvolutionBackward0.input": 1}
    frozen.undo()
    assert slimmed(model(X)) == {}
    again = ft.freeze(model, "1")
    assert slimmed(model(X)) == SLIM
    lean.undo()
    assert slimmed(model(X)) == {}
    thawed.undo()
    again.undo()
    assert len(ft.trainable(model)) == 8
    assert traces(model) == []


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("exact", [True, False])
def test_handles_undo_in_any_order(order: tuple[int, ...], exact: bool) -> None:
    model = network()
    before = traces(model), [module.training for module in model.modules()]
    handles = [ft.freeze(model, "1"), ft.lean(model, exact=exact), ft.freeze(model, "1[0]")]
    model(X).sum().backward()
    for index in order:
        handles[index].undo()
        model(X)
    assert traces(model) == before[0]
    assert [module.training for module in model.modules()] == before[1]


def test_a_later_call_takes_the_place_of_an_earlier_one() -> None:
    model = network()
    ft.freeze(model, "1")
    before = traces(model)
    first, second = ft.lean(model, exact=False), ft.lean(model)
    expected = derivatives(copy.deepcopy(model), X)
    first.undo()
    assert derivatives(model, X) == expected
    assert slimmed(model(X)) == SLIM
    second.undo()
    assert traces(model) == before


def test_a_part_after_the_whole() -> None:
    model = network()
    ft.freeze(model, "1")
    before = traces(model)
    whole, part = ft.lean(model), ft.lean(model[1])
    assert slimmed(model(X)) == SLIM
    whole.undo()
    assert slimmed(model(X)) == SLIM
    part.undo()
    assert traces(model) == before


def test_the_whole_after_a_part() -> None:
    model = network()
    ft.freeze(model, "1")
    before = traces(model)
    part, whole = ft.lean(model[1]), ft.lean(model)
    part.undo()
    assert slimmed(model(X)) == SLIM
    whole.undo()
    assert traces(model) == before


@pytest.mark.parametrize("exact", [True, False])
def test_a_copy_is_lean_and_can_be_made_plain(exact: bool) -> None:
    model = network()
    ft.freeze(model, "1")
    before = traces(model)
    handle = ft.lean(model, exact=exact)
    model(X)
    other = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    handle.undo()
    assert traces(model) == before
    assert slimmed(other(X))
    with ft.lean(other):
        assert slimmed(other(X)) == SLIM
    assert slimmed(other(X)) == {}
    assert traces(other) == before


def test_without_exactness_norms_are_folded_and_hidden() -> None:
    model = network()
    ft.freeze(model, "1")
    before, expected = contents(model), model(X)
    with ft.lean(model, exact=False) as handle:
        assert repr(handle) == "Lean(exact=False, memory_budget=None)"
        y = model(X)
        assert slimmed(y) == {"ConvolutionBackward0.input": 2, "ReluBackward0.result": 1}
        assert contents(model) == before
    torch.testing.assert_close(y, expected)
    assert bits(model(X)) == bits(expected)


def test_a_budget_is_held_by_checkpoints() -> None:
    blocks = [nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.GELU()) for _ in range(4)]
    model, x = nn.Sequential(nn.Linear(8, 8), *blocks), torch.randn(64, 8)
    ft.freeze(model, "[1:]")
    expected = derivatives(model, x, second=False)
    with ft.lean(model, memory_budget=0.6):
        assert derivatives(model, x, second=False) == expected
    with ft.lean(model, memory_budget=10), pytest.raises(frostline.errors.BudgetError):
        model(x)


def test_a_state_dict_is_the_same() -> None:
    model = network()
    ft.freeze(model, "1")
    names = list(model.state_dict())
    with ft.lean(model, exact=False, memory_budget=1.0):
        model(X)
        assert list(model.state_dict()) == names
        model.load_state_dict(network().state_dict())


def test_inside_a_wrapper() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    model = network()
    ft.freeze(model, "1")
    with ft.lean(Wrapper(model)):
        assert slimmed(model(X)) == SLIM
