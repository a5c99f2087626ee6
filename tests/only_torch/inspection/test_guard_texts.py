"""The whole text of the error of a guard, for each likely cause."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn

import frostline.torch as ft
from frostline import MovedError


def _pair() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential()
    model.add_module("a", nn.Linear(1, 2, bias=False))
    model.add_module("b", nn.Linear(2, 1))
    nn.init.ones_(model.a.weight)
    return model, torch.optim.SGD(model.parameters(), 0.5, weight_decay=0.5)


def _zeros(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


def _decay(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    _zeros(model)
    optimizer.step()


def _stale(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.a.weight.grad = torch.tensor([[0.5], [0.0]])
    optimizer.param_groups[0]["weight_decay"] = 0
    optimizer.step()


def _momentum(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0].update(weight_decay=0, momentum=1.0)
    optimizer.state[model.a.weight]["momentum_buffer"] = torch.tensor([[0.5], [0.5]])
    model.a.weight.grad = torch.zeros(2, 1)
    optimizer.step()


def _thawed(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.requires_grad_(True)
    _decay(model, optimizer)


def _replaced(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.a.weight.data = torch.tensor([[1.0], [2.0]])


def _written(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups.clear()
    with torch.no_grad():
        model.a.weight[1].mul_(0.25)


def _written_unseen(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups.clear()
    model.a.weight.detach().numpy()[0] = 3


def _removed(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.a = nn.Identity()


def _resized(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.a.weight = nn.Parameter(torch.zeros(3, 1))


MOVES: list[tuple[str, Callable[[nn.Module, torch.optim.Optimizer], None], list[str]]] = [
    (
        "decay",
        _decay,
        [
            "First difference: at [0, 0], 1.0 -> 0.75; 2 of 2 values.",
            "  Likely cause: decay: SGD decays it, weight_decay=0.5 in parameter group 0.",
            "  freeze(model, 'a.weight') drops the gradient without which SGD does nothing.",
        ],
    ),
    (
        "stale gradient",
        _stale,
        [
            "First difference: at [0, 0], 1.0 -> 0.75; 1 of 2 values.",
            "  Likely cause: stale gradient: SGD moves what has a .grad, and this one still has one.",
            "  freeze(model, 'a.weight') drops it; by hand: parameter.grad = None.",
        ],
    ),
    (
        "momentum",
        _momentum,
        [
            "First difference: at [0, 0], 1.0 -> 0.75; 2 of 2 values.",
            "  Likely cause: momentum: SGD has it in parameter group 0, with state from before.",
            "  freeze(model, 'a.weight') drops the gradient without which SGD does nothing.",
        ],
    ),
    (
        "thawed",
        _thawed,
        [
            "First difference: at [0, 0], 1.0 -> 0.75; 2 of 2 values.",
            "  Likely cause: it was thawed: requires_grad is True now, and an optimizer moved it.",
            "  freeze(model, 'a.weight') again, or look for requires_grad_(True) over the model.",
        ],
    ),
    (
        "replaced storage",
        _replaced,
        [
            "First difference: at [1, 0], 1.0 -> 2.0; 1 of 2 values.",
            "  Likely cause: its storage was replaced (by an assignment, .data = ..., .to(...) "
            "or load_state_dict(assign=True)).",
            "  Write in place under torch.no_grad(), or replace it outside of the guarded block.",
        ],
    ),
    (
        "in-place write",
        _written,
        [
            "First difference: at [1, 0], 1.0 -> 0.25; 1 of 2 values.",
            "  Likely cause: in-place write: something wrote into it (copy_, add_, an initialiser, an average).",
            "  Look for writes under torch.no_grad() to this parameter.",
        ],
    ),
    (
        "in-place write unseen by autograd",
        _written_unseen,
        [
            "First difference: at [0, 0], 1.0 -> 3.0; 1 of 2 values.",
            "  Likely cause: in-place write that autograd does not see (.data, NumPy, or a kernel of its own).",
            "  Look for writes through .data to this parameter.",
        ],
    ),
    (
        "removed",
        _removed,
        [
            "It is not in the model any more.",
            "  Likely cause: the module that held it was replaced or removed.",
            "  Replace modules before the guarded block, and freeze the new ones.",
        ],
    ),
    (
        "resized",
        _resized,
        [
            "It had 8 bytes and has 12.",
            "  Likely cause: its storage was replaced (by an assignment, .data = ..., .to(...) "
            "or load_state_dict(assign=True)).",
            "  Write in place under torch.no_grad(), or replace it outside of the guarded block.",
        ],
    ),
]


@pytest.mark.parametrize(("name", "move", "text"), MOVES, ids=[name for name, *_ in MOVES])
def test_whole_text_of_each_movement(
    name: str, move: Callable[[nn.Module, torch.optim.Optimizer], None], text: list[str]
) -> None:
    """Frozen by hand, so that each cause can act."""
    model, optimizer = _pair()
    model.a.requires_grad_(False)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        move(model, optimizer)
    first, *rest = text
    expected = ["1 of 1 frozen tensors moved.", f"'a.weight' (parameter) moved. {first}", *rest]
    assert str(caught.value).split("\n") == expected


def _norm(*, training: bool) -> nn.Module:
    model = nn.Sequential()
    model.add_module("norm", nn.BatchNorm1d(1).train(training))
    return model.requires_grad_(False)


def test_whole_text_of_moved_statistics() -> None:
    model = _norm(training=True)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model(torch.tensor([[1.0], [3.0]]))
    cause = [
        "  Likely cause: statistics: BatchNorm1d 'norm' is in training mode and updates them in each call.",
        "  freeze(model, 'norm') holds it in evaluation mode through every train().",
    ]
    assert str(caught.value).split("\n") == [
        "3 of 5 frozen tensors moved.",
        "'norm.running_mean' (buffer) moved. First difference: at [0], 0.0 -> 0.20000000298023224; 1 of 1 values.",
        *cause,
        "'norm.running_var' (buffer) moved. First difference: at [0], 1.0 -> 1.100000023841858; 1 of 1 values.",
        *cause,
        "'norm.num_batches_tracked' (buffer) moved. First difference: at [], 0 -> 1; 1 of 1 values.",
        *cause,
    ]


def test_whole_text_of_statistics_that_moved_in_another_mode() -> None:
    """The mode was set back before the guard looked."""
    model = _norm(training=False)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        model.train()(torch.tensor([[-1.0], [1.0]])).detach_(), model.eval()
    assert str(caught.value).split("\n")[-3:] == [
        "'norm.num_batches_tracked' (buffer) moved. First difference: at [], 0 -> 1; 1 of 1 values.",
        "  Likely cause: statistics or state: BatchNorm1d 'norm' was called in training mode, "
        "or writes its buffers in evaluation mode too.",
        "  freeze(model, 'norm') holds its mode, and keeps its calls from writing.",
    ]


def test_whole_text_of_a_frozen_use_that_is_trained_elsewhere() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    model = nn.Sequential(ft.Frozen(layer))
    with pytest.raises(MovedError) as caught, ft.guard(model):
        torch.optim.SGD(layer.parameters(), 1.0).param_groups[0]["params"][0].data.mul_(2)
    assert str(caught.value).split("\n") == [
        "1 of 1 frozen tensors moved.",
        "'0.weight' (parameter) moved. First difference: at [0, 0], 1.0 -> 2.0; 1 of 1 values.",
        "  Likely cause: training elsewhere: '0.weight' is a frozen use, and the layer itself is trainable.",
        "  Guard the steps in which the layer is not trained, or freeze the layer itself.",
    ]


def test_whole_text_of_many_that_moved() -> None:
    """Five are described, the rest is counted."""
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4))).requires_grad_(False)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        torch._foreach_add_(list(model.parameters()), 1)
    lines = str(caught.value).split("\n")
    assert (lines[0], lines[-1]) == ("8 of 8 frozen tensors moved.", "... and 3 more")
    assert len(lines) == 1 + 5 * 3 + 1
    assert len(caught.value.moved) == 8


def test_explaining_looks_for_optimizers_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk over all objects takes a tenth of a second, so one for each tensor would take minutes."""
    model, walks, objects = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4))), [], gc.get_objects

    def walk() -> list[object]:
        walks.append(1)
        return objects()

    monkeypatch.setattr(gc, "get_objects", walk)
    model.requires_grad_(False)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        torch._foreach_add_(list(model.parameters()), 1)
    assert (len(caught.value.moved), len(walks)) == (8, 1)
    with ft.guard(model):
        pass
    assert len(walks) == 1


def test_moved_errors_survive_pickling() -> None:
    model, optimizer = _pair()
    model.a.requires_grad_(False)
    with pytest.raises(MovedError) as caught, ft.guard(model):
        _decay(model, optimizer)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.moved, again.watched, str(again)) == (caught.value.moved, 1, str(caught.value))
