"""Slimming while something else looks at the graph, or at the modules."""

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import frostline.torch as ft
from only_torch.bits import bits, gradients
from only_torch.lean.slimmed import ALL, PICTURE, Through, agree, block, derivatives, frozen_block, slimmed, slimming


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(reentrant: bool) -> None:
    inner = nn.Sequential(frozen_block(), frozen_block())
    model = Through(lambda x: F.relu(checkpoint(inner, x, use_reentrant=reentrant)), frozen_block())
    model.inner = inner

    def gradient() -> object:
        x = PICTURE.clone().requires_grad_()
        model(x).square().sum().backward()
        assert x.grad is not None
        return bits(x.grad)

    expected = gradient()
    with slimming(model):  # its modules are called in the checkpoint, and it calls the checkpoint
        assert [gradient() for _ in range(3)] == [expected] * 3
        assert slimmed(model(PICTURE.clone().requires_grad_())) == ALL | {"ReluBackward0.result": 2}


def test_checkpointing_runs_the_forward_no_more_often() -> None:
    calls = []
    model = nn.Sequential(frozen_block(), frozen_block())
    model[0].register_forward_hook(lambda *args: calls.append(1))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False) * 2

    outer = Outer()
    with slimming(outer):
        for _ in range(2):
            outer(PICTURE.clone().requires_grad_()).sum().backward()
    assert len(calls) == 4


def test_another_savers_hooks_come_first() -> None:
    model, packed = frozen_block(), list[Tensor]()
    x = PICTURE.clone().requires_grad_()

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor

    def watched() -> tuple[dict[str, int], int]:
        packed.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return slimmed(model(x)), len(packed)

    expected = watched()
    with slimming(model):
        assert [watched() for _ in range(3)] == [expected] * 3 == [({}, 11)] * 3
        assert slimmed(model(x)) == ALL


def test_backward_twice() -> None:
    model, x = frozen_block(), PICTURE.clone().requires_grad_()
    with slimming(model):
        y = model(x)
    one = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert bits(torch.autograd.grad(y.sum(), x)[0]) == bits(one)


def test_torch_func_is_left_alone() -> None:
    model = frozen_block()

    def loss(x: Tensor) -> Tensor:
        return model(x[None]).square().sum()

    expected = [bits(torch.vmap(torch.func.grad(loss))(PICTURE)), bits(torch.func.jacrev(model)(PICTURE[:1]))]
    with slimming(model):
        found = [bits(torch.vmap(torch.func.grad(loss))(PICTURE)), bits(torch.func.jacrev(model)(PICTURE[:1]))]
    assert found == expected


def test_what_is_compiled_is_left_to_the_compiler() -> None:
    torch.compiler.reset()
    model, x = frozen_block(), PICTURE.clone().requires_grad_()
    expected = bits(torch.autograd.grad(torch.compile(model, backend="aot_eager", fullgraph=True)(x).sum(), x)[0])
    torch.compiler.reset()
    with slimming(model):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        found = bits(torch.autograd.grad(compiled(x).sum(), x)[0])
        assert slimmed(model(x)) == ALL
    assert found == expected


def test_a_trace_has_no_more_operations() -> None:
    model = frozen_block()

    def operations() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            graph = torch.jit.trace(model, PICTURE.clone().requires_grad_(), check_trace=False).inlined_graph
        return str(graph).count("aten::")

    expected = operations()
    with slimming(model):
        assert operations() == expected > 0


def test_an_edit_of_what_was_saved_is_still_an_error() -> None:
    model = Through(lambda x: F.relu(x).mul_(2), nn.Conv2d(3, 3, 1).requires_grad_(False))
    with slimming(model):
        y = model(PICTURE.clone().requires_grad_())
        assert slimmed(y) == {"ConvolutionBackward0.input": 1}
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_an_edit_after_the_call_no_longer_matters() -> None:
    kept = []
    conv = nn.Conv2d(3, 3, 1).requires_grad_(False)
    model = Through(lambda x: conv(kept.append(y := F.relu(x)) or y))
    x = PICTURE.clone().requires_grad_()
    expected = torch.autograd.grad(model(x).sum(), x)[0]
    with slimming(model):
        y = model(x)
    kept[-1].data.zero_()
    assert bits(torch.autograd.grad(y.sum(), x)[0]) == bits(expected)


def test_hooks_of_others_are_kept_and_may_change_the_result() -> None:
    model, seen = frozen_block(), []
    model[1].register_forward_hook(lambda module, args, y: y * 2)
    model[2].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    with slimming(model):
        model[1].register_forward_hook(lambda module, args, y: y + 1)
        x = PICTURE.clone().requires_grad_()
        expected = model[3](F.relu((model[1].forward(model[0](x))) * 2 + 1))
        assert bits(model(x)) == bits(expected)
    assert len(model[1]._forward_hooks) == 2
    assert seen == [(2, 4, 6, 6)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_slim_too_and_by_itself(copied: Callable[[nn.Module], nn.Module]) -> None:
    model, x = frozen_block(), PICTURE.clone().requires_grad_()
    with slimming(model):
        model(x)
        other = copied(model)
    for _ in range(3):
        with slimming(nn.Identity()):
            assert slimmed(other(x)) == ALL
            assert slimmed(model(x)) == {}
    assert bits(torch.autograd.grad(other(x).sum(), x)[0]) == bits(torch.autograd.grad(model(x).sum(), x)[0])


def test_a_thaw_between_forward_and_backward() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), block())
    handle, results = ft.freeze(model, "1"), []
    for lean in (False, True):
        model.zero_grad()
        with slimming(model) if lean else torch.enable_grad():
            y = model(PICTURE)
        again = ft.thaw(model)
        y.sum().backward()
        again.undo()
        results.append(gradients(model))
    handle.undo()
    assert results[0] == results[1]


def test_several_threads() -> None:
    model, expected = frozen_block(), {}
    for index in range(4):
        expected[index] = derivatives(model, PICTURE + index)
    found: dict[int, Any] = {}

    def run(index: int) -> None:
        found[index] = [derivatives(model, PICTURE + index) for _ in range(5)]

    with slimming(model):
        threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {index: [result] * 5 for index, result in expected.items()}


def test_a_replica_as_data_parallel_makes_it() -> None:
    model = frozen_block()
    x = PICTURE.clone().requires_grad_()
    with slimming(model):
        model(x)
        replica = model._replicate_for_data_parallel()
        replica._modules = model._modules.copy()
        assert slimmed(replica(x)) == ALL
        assert slimmed(model(x)) == ALL


def test_moving_to_another_type() -> None:
    model = frozen_block()
    with slimming(model):
        model(PICTURE.clone().requires_grad_())
        assert agree(model.double(), PICTURE.double()) == ALL


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), frozen_block())
    with torch.autocast("cpu", dtype):
        found = agree(model, PICTURE, second=False)
    assert found == ALL


def test_memory_that_is_filled_with_nan() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        agree(frozen_block(), PICTURE)
    finally:
        torch.use_deterministic_algorithms(False)


def test_subclasses_of_tensor_are_left_alone() -> None:
    class Own(Tensor):
        pass

    model = frozen_block()
    with slimming(model):
        y = model(PICTURE.clone().as_subclass(Own).requires_grad_())
        assert type(y) is Own
        y.sum().backward()


def test_sparse_tensors_are_let_through() -> None:
    conv = nn.Conv2d(3, 3, 1).requires_grad_(False)
    model = Through(lambda x: conv(x.to_dense()).to_sparse())
    with slimming(model):
        for _ in range(2):
            y = model(PICTURE.to_sparse().requires_grad_())
            assert y.layout == torch.sparse_coo
            assert slimmed(y) == {"ConvolutionBackward0.input": 1}


def test_a_leaned_model_is_exported() -> None:
    model = frozen_block()
    with slimming(model):
        exported = torch.export.export(model, (PICTURE,), strict=False).module()
        assert bits(exported(PICTURE)) == bits(model(PICTURE))
