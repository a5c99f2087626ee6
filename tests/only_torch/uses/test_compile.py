"""Frozen uses in compiled and exported models (L11)."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import frostline.torch as ft
from frostline import UnsupportedError
from only_torch.bits import bits, contents, moved, without_gradient
from only_torch.kinds import KINDS, Kind, each_kind, loss, some_kinds


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def counted() -> CompileCounterWithBackend:
    return CompileCounterWithBackend("aot_eager")


class Around(nn.Module):
    """A trainable scale before a layer, so that the gradient must go through the layer."""

    def __init__(self, kind: Kind, inner: nn.Module) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.inner = inner
        self.call = kind.call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.inner, x * self.scale)


def halve(layer: nn.Module) -> None:
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.mul_(0.5)


# PyTorch does not compile in one graph: recurrent layers, reentrant checkpoints, observers, and writes through data.
NOT_IN_ONE_GRAPH = (
    *("lstm", "two_way_lstm", "gru", "checkpointed_reentrant", "fake_quantize", "prepared_for_quantisation"),
    *("momentum_contrast_by_data", "momentum_contrast"),  # see the test of what a parent writes
    *("merging_adapter", "branches_as_kernel"),  # what their own train() makes is made outside of the graph
)


@each_kind(without=NOT_IN_ONE_GRAPH)
def test_compiled_in_one_graph(kind: Kind) -> None:
    """Same output, open to the input, absent gradients, no movement, live values, and compiled once."""
    layer, counter = kind.layer(), counted()
    model = Around(kind, ft.Frozen(layer))
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    before = contents(layer)
    for _ in range(3):
        model.train()
        out = compiled(kind.input().detach())
        loss(out).backward()
    assert bits(out) == bits(Around(kind, kind.constant())(kind.input()))
    assert model.scale.grad.item() != 0
    assert without_gradient([*layer.parameters(), *model.inner.parameters()])
    assert moved(before, layer) == set()
    halve(layer)
    assert bits(compiled(kind.input().detach())) == bits(Around(kind, kind.constant(layer))(kind.input()))
    assert counter.frame_count == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of Dynamo
@some_kinds("merging_adapter", "branches_as_kernel")
def test_compiled_in_more_than_one_graph(kind: Kind) -> None:
    """The own train() of the layer has made weights, which are made anew when the layer has changed."""
    layer = kind.layer()
    model = Around(kind, ft.Frozen(layer))
    compiled = torch.compile(model, backend="aot_eager")
    before = contents(layer)
    for _ in range(2):
        loss(compiled(kind.input().detach())).backward()
    assert moved(before, layer) == set()
    halve(layer)
    assert bits(compiled(kind.input().detach())) == bits(Around(kind, kind.constant(layer))(kind.input()))


@pytest.mark.parametrize("held", [ft.Frozen, lambda layer: ft.freeze(layer) and layer])
def test_compiled_it_leaves_alone_what_a_parent_has_written_in_an_eager_call(held: Callable[..., nn.Module]) -> None:
    """A compiled call cannot see by itself which weights of its children a module writes."""
    (kind,) = (kind for kind in KINDS if kind.name == "momentum_contrast")
    layer, expected = kind.layer(), kind.constant()(kind.input())
    model = held(layer)
    before = contents(layer)
    model(kind.input())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert [bits(compiled(kind.input().detach())) for _ in range(2)] == [bits(expected)] * 2
    assert moved(before, layer) == set()


def training_step(model: nn.Module, step: torch.optim.Optimizer) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        step.zero_grad()
        out = model(x).square().sum()
        out.backward()
        step.step()
        return out.detach()

    return run


class Shared(nn.Module):
    """The same layer trained and frozen in one model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.use = ft.Frozen(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.layer(x))


def test_steady_state_of_training_compiles_nothing_again() -> None:
    """The layer moves in each step, and the compiled frozen use follows it without a new graph."""
    counter, model, eager = counted(), Shared(), Shared()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    runs = [training_step(m, torch.optim.SGD(m.parameters(), lr=0.01)) for m in (compiled, eager)]
    x = torch.ones(2, 4)
    assert [bits(runs[0](x)) for _ in range(5)] == [bits(runs[1](x)) for _ in range(5)]
    assert counter.frame_count == 1


@pytest.mark.parametrize("write", ["data", "assign", "replace", "double"])
def test_new_storage_of_the_layer_is_seen_by_compiled_code(write: str) -> None:
    layer = nn.Linear(2, 2)
    use = ft.Frozen(layer)
    compiled = torch.compile(use, fullgraph=True, backend="aot_eager")
    x = torch.ones(1, 2)
    compiled(x)
    if write == "data":
        layer.weight.data = torch.full((2, 2), 2.0)
    elif write == "assign":
        layer.load_state_dict({"weight": torch.full((2, 2), 2.0), "bias": torch.zeros(2)}, assign=True)
    elif write == "replace":
        layer.weight = nn.Parameter(torch.full((2, 2), 2.0))
    else:
        layer.double()
        x = x.double()
    assert bits(compiled(x)) == bits(layer.requires_grad_(False)(x))


def test_a_sweep_over_flags_does_not_thaw_compiled_code() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(nn.Linear(2, 2), ft.Frozen(layer))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(torch.ones(1, 2)).sum().backward()
    model.requires_grad_(True)
    compiled(torch.ones(1, 2)).sum().backward()
    assert without_gradient([*layer.parameters(), *model[1].parameters()])


@pytest.mark.parametrize("inside", [False, True])
def test_compiled_layer_is_refused(inside: bool) -> None:
    """Compiled code calls the layer that it was made for, with its trainable parameters."""
    layer: nn.Module = torch.compile(nn.Linear(2, 2), backend="aot_eager")
    with pytest.raises(UnsupportedError, match="is compiled"):
        ft.Frozen(nn.Sequential(layer) if inside else layer)


def test_frozen_in_place_before_compiling() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    ft.freeze(model, "[:-1]")
    before = contents(model[:-1])
    counter = counted()
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for _ in range(3):
        model.train()
        compiled(torch.randn(3, 4)).sum().backward()
    assert moved(before, model[:-1]) == set()
    assert without_gradient(model[:-1].parameters())
    assert counter.frame_count == 1


def test_freezing_and_thawing_after_compiling_is_seen() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.tensor([[1.0, 2.0], [5.0, -3.0]])
    compiled(x).sum().backward()
    handle = ft.freeze(compiled, "[:2]")
    before = contents(model[:2])
    compiled(x).sum().backward()
    assert without_gradient(model[:2].parameters())
    assert moved(before, model[:2]) == set()
    handle.undo()
    compiled(x).sum().backward()
    assert [p.grad is None for p in model.parameters()] == [False] * 6
    assert moved(before, model[:2]) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


# Observers and a queue branch on their values; a graph for inference has no checkpoint; a codebook writes.
NOT_EXPORTED = (
    *("fake_quantize", "checkpointed", "checkpointed_reentrant", "codebook", "prepared_for_quantisation"),
    *("momentum_contrast", "momentum_contrast_by_data"),
)


@pytest.mark.filterwarnings("ignore:The tensor attribute:UserWarning")  # plain tensor attributes, as without frostline
@each_kind(without=NOT_EXPORTED)
def test_exported(kind: Kind) -> None:
    """The program has the names of the model, computes the same, and writes to nothing."""
    layer = kind.layer()
    model = Around(kind, ft.Frozen(layer))
    with torch.no_grad():
        program = torch.export.export(model, (kind.input().detach(),))
    expected = bits(Around(kind, kind.constant())(kind.input()))
    assert bits(program.module()(kind.input().detach())) == expected
    assert set(program.state_dict) <= set(model.state_dict())
    assert dict(program.graph_signature.buffers_to_mutate) == {}
    assert bits(model(kind.input())) == expected
