"""Copies and tools see a module, whatever is held: shallow copies, clones, scripts, traces, exports (L10, L11)."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import Tensor, fx, nn

import frostline.torch as ft
from only_torch.bits import bits, contents, moved

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning"),  # of any recurrent layer that is exported
]

X = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 4.0, -1.5, 1.0], [2.0, 2.5, -3.0, 0.5]])


class Counting(nn.Module):
    """A module of somebody else, which writes a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.linear(x)


class Adding(nn.Module):
    """A module of somebody else that TorchScript can read."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.shift


def clone_of(module: nn.Module) -> nn.Module:
    """A clone through ``__dict__``, as libraries for meta-learning make it."""
    clone = module.__new__(type(module))
    clone.__dict__ = module.__dict__.copy()
    clone._parameters = {name: p if p is None else p.clone() for name, p in module._parameters.items()}
    clone._buffers = {name: b if b is None else b.clone() for name, b in module._buffers.items()}
    clone._modules = {name: clone_of(child) for name, child in module._modules.items()}
    return clone


def saved(module: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, clone_of, saved, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("build", [Counting, lambda: nn.RNN(4, 4), lambda: nn.BatchNorm1d(4), lambda: nn.Linear(4, 4)])
def test_a_copy_is_a_held_module_with_its_own_tensors(build, copied) -> None:  # type: ignore[no-untyped-def]
    layer = build()
    model = nn.Sequential(layer, nn.Identity())
    ft.freeze(model, "[0]")
    model.train()
    expected = bits(layer(X)[0])
    other = copied(layer)
    assert other.train() is other
    assert (other.training, layer.training) == (False, False)
    before, own = contents(layer), contents(other)
    assert bits(other(X)[0]) == expected
    assert (moved(before, layer), moved(own, other)) == (set(), set())
    other._parameters = {name: torch.zeros_like(p) for name, p in other._parameters.items() if p is not None}
    for child in () if copied is copy.copy else other._modules.values():  # a shallow copy has the same children
        child._parameters = {name: torch.zeros_like(p) for name, p in child._parameters.items()}
    if not isinstance(layer, nn.RNN) and (copied is not copy.copy or not layer._modules):  # a list of weights, too
        assert not other(X).any()
    assert moved(before, layer) == set()


def test_a_clone_of_a_recurrent_layer_computes_with_its_own_weights() -> None:
    model = nn.Sequential(nn.RNN(4, 4), nn.Identity())
    ft.freeze(model, "[0]")
    clone = clone_of(model)
    for name, parameter in clone[0]._parameters.items():
        clone[0]._parameters[name] = parameter * 0
    assert not clone[0](X)[0].any()


@pytest.mark.parametrize(
    "build", [Adding, lambda: nn.GRU(4, 4), lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))]
)
def test_scripts_traces_and_graphs(build) -> None:  # type: ignore[no-untyped-def]
    model = nn.Sequential(build())
    ft.freeze(model)
    model.eval()
    expected = model(X)
    first = expected[0] if isinstance(expected, tuple) else expected
    for made in (torch.jit.script(model), torch.jit.trace(model, (X,)), torch.export.export(model, (X,)).module()):
        result = made(X)
        assert bits(result[0] if isinstance(result, tuple) else result) == bits(first)
    assert not any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


def test_a_symbolic_trace_runs_the_modules() -> None:
    model = nn.Sequential(Counting(), nn.Linear(4, 2))
    ft.freeze(model, "[0]")
    graph = fx.symbolic_trace(model)
    assert bits(graph(X)) == bits(model(X))


def test_a_slice_of_a_held_container_is_a_plain_one() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    ft.freeze(model)
    part = model[:2]
    assert (type(part), part[1] is model[1], len(part)) == (nn.Sequential, True, 2)


def test_another_library_makes_modules_of_a_subclass() -> None:
    """As higher does: it derives from ``type(module)``, with arguments of its own, and copies the attributes."""
    layer = nn.Linear(4, 2)
    ft.freeze(layer)

    class Patched(type(layer)):  # type: ignore[misc]
        def __init__(self, weights: list[Tensor], root: nn.Module | None = None) -> None:
            nn.Module.__init__(self)
            self.weight, self.bias = (nn.Parameter(w.detach() * 2) for w in weights)

    patched = Patched([layer.weight, layer.bias], root=None)
    assert bits(patched(X)) == bits(layer(X) * 2)


def test_the_class_has_the_name_of_the_module_s_own() -> None:
    model = nn.Sequential(Counting(), nn.Linear(4, 2))
    text, names = repr(model), [type(module).__name__ for module in model]
    handle = ft.freeze(model)
    assert (repr(model), [type(module).__name__ for module in model]) == (text, names)
    assert isinstance(model[0], Counting)
    handle.undo()
    assert [type(module) for module in model] == [Counting, nn.Linear]


def test_a_forward_that_the_class_gets_later_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries replace the forward of a class by a faster one."""
    layer = Counting()
    ft.freeze(layer)
    monkeypatch.setattr(Counting, "forward", lambda self, x: self.linear(x) * 2)
    assert bits(layer(X)) == bits(layer.linear(X) * 2)


def test_a_called_module_is_collected_even_if_it_refers_to_itself() -> None:
    layer = Counting()
    layer.own = [layer]
    ft.freeze(layer)
    for _ in range(2):
        layer(X)
    gone = weakref.ref(layer)
    del layer
    gc.collect()
    assert gone() is None


def test_undone_nothing_of_ours_is_left_in_the_module() -> None:
    layer = Counting()
    before = set(vars(layer))
    handle = ft.freeze(layer)
    layer(X)
    handle.undo()
    assert set(vars(layer)) == before
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    handle = ft.freeze(model)
    model(X)
    assert b"frostline" in pickle.dumps(model)
    handle.undo()
    assert b"frostline" not in pickle.dumps(model)
