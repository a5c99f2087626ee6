"""A delta of one front end loads bitwise into the same net of the other, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

import frostline.jax as fj
import frostline.torch as ft
from conformance import plain_net
from conformance.bench_torch import bench as torch_bench
from frostline.errors import DeltaError

DTYPES = {
    "bfloat16": (torch.bfloat16, jnp.bfloat16),
    "float16": (torch.float16, np.float16),
    "float32": (torch.float32, np.float32),
    "float64": (torch.float64, np.float64),
    "complex64": (torch.complex64, np.complex64),
    "complex128": (torch.complex128, np.complex128),
}
SELECTIONS = [("[0]",), ("[0]", "[1]"), ("**.bias",), ("**", "![2].weight"), ()]

each_selection = pytest.mark.parametrize("selectors", SELECTIONS, ids=["-".join(row) or "none" for row in SELECTIONS])


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def in_torch(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    drawn, norm = torch.complex64 if dtype.is_complex else torch.float32, nn.BatchNorm1d(3)
    # A counter of integers, of which the net in JAX has none.
    norm.num_batches_tracked = None
    model = nn.Sequential(nn.Linear(4, 3), norm, nn.Linear(3, 2))
    for layer in model:
        for name, tensor in layer.named_parameters():
            setattr(layer, name, nn.Parameter(torch.randn(tensor.shape, dtype=drawn).to(dtype)))
        for name, tensor in layer.named_buffers():
            layer._buffers[name] = torch.randn(tensor.shape, dtype=drawn).to(dtype)
    return model


def raw(model: nn.Module) -> dict[str, bytes]:
    return {path: t.contiguous().view(torch.uint8).numpy().tobytes() for path, t in model.state_dict().items()}


def in_jax(model: nn.Sequential, dtype: Any = np.float32) -> Any:
    """The same net with equal bits."""
    shapes, bits = {path: t.shape for path, t in model.state_dict().items()}, raw(model)
    arrays = {path: jnp.asarray(np.frombuffer(bits[path], dtype).reshape(shape)) for path, shape in shapes.items()}

    def layer(kind: Any, number: int, *names: str) -> Any:
        return kind(*(arrays[f"{number}.{name}"] for name in names))

    return plain_net.Sequential(
        layer(plain_net.Linear, 0, "weight", "bias"),
        layer(plain_net.BatchNorm1d, 1, "weight", "bias", "running_mean", "running_var"),
        layer(plain_net.Linear, 2, "weight", "bias"),
    )


def raw_of_tree(tree: Any) -> dict[str, bytes]:
    leaves = jax.tree_util.tree_leaves_with_path(fj.strip(tree))
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return {path: np.asarray(leaf).tobytes() for path, leaf in named.items() if isinstance(leaf, jax.Array)}


def frozen(model: nn.Sequential, selectors: tuple[str, ...]) -> nn.Sequential:
    if selectors:
        ft.freeze(model, *selectors)
    return model


@pytest.mark.parametrize("dtype", DTYPES)
@each_selection
def test_a_delta_goes_to_the_other_front_end_and_back(selectors: tuple[str, ...], dtype: str) -> None:
    theirs, ours = DTYPES[dtype]
    with jax.enable_x64(np.dtype(ours).itemsize > 4):
        model = frozen(in_torch(dtype=theirs), selectors)
        ft.save_delta("a", model, schedule={"step": 7})

        other = in_torch(1, theirs)
        other.load_state_dict({path: t for path, t in model.state_dict().items() if path in still(model)}, strict=False)
        delta = fj.load_delta("a", in_jax(other, ours))
        assert raw_of_tree(delta.tree) == raw(model)
        # Statistics are parameters in JAX, as a pytree knows no difference.
        assert delta.plan.frozen >= ft.plan(model).frozen
        assert delta.plan.frozen == still(model)
        assert delta.schedule == {"step": 7}

        fj.save_delta("b", delta.tree, schedule={"step": 7})
        assert ft.load_delta("b", other).names == delta.names
        assert raw(other) == raw(model)
        assert ft.plan(other) == ft.plan(model)


@each_selection
def test_files_without_statistics_have_equal_bytes(selectors: tuple[str, ...]) -> None:
    model = frozen(nn.Sequential(*torch_bench.layers()), selectors)
    tree = plain_net.Sequential(*(plain_net.Linear(*map(_array, layer.parameters())) for layer in model))
    ft.save_delta("a", model, schedule=[7])
    fj.save_delta("b", fj.follow(tree, ft.plan(model)), schedule=[7])
    assert Path("a").read_bytes() == Path("b").read_bytes()


def _array(tensor: torch.Tensor) -> jax.Array:
    return jnp.asarray(tensor.detach().numpy())


def still(model: nn.Module) -> frozenset[str]:
    with ft.guard(model) as watching:
        return watching.paths


@each_selection
def test_both_find_a_changed_bit_in_the_base(selectors: tuple[str, ...]) -> None:
    model, other = frozen(in_torch(), selectors), in_torch(1)
    ft.save_delta("a", model)
    if not still(model):
        return
    with pytest.raises(DeltaError) as in_one:
        ft.load_delta("a", other)
    with pytest.raises(DeltaError) as in_other:
        fj.load_delta("a", in_jax(other))
    assert in_one.value.found == in_other.value.found == tuple(f"differs: {path}" for path in sorted(still(model)))
    assert in_one.value.problem == in_other.value.problem


def test_a_step_in_jax_of_a_model_trained_in_torch() -> None:
    model = frozen(in_torch(), ("[0]", "[1]"))
    ft.save_delta("a", model)
    tree = fj.load_delta("a", in_jax(model)).tree
    gradient = fj.grad(lambda tree: jnp.square(tree(jnp.ones((5, 4)))).sum())(tree)
    trained, rest = fj.split(tree)
    tree = fj.join(optax.apply_updates(trained, gradient), rest)
    fj.save_delta("b", tree)
    before = raw(model)
    ft.load_delta("b", model)
    assert {path for path, data in raw(model).items() if data != before[path]} == {"2.weight", "2.bias"}
    assert raw(model) == raw_of_tree(tree)


def test_a_tied_parameter_goes_both_ways() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    weight = _array(first.weight)
    tree = fj.tie(plain_net.Sequential(*(plain_net.Linear(weight, _array(layer.bias)) for layer in (first, second))))
    ft.save_delta("a", model)
    fj.save_delta("b", tree)
    assert Path("a").read_bytes() == Path("b").read_bytes()
    zeros = jnp.zeros((3, 3))
    fresh = fj.tie(plain_net.Sequential(*(plain_net.Linear(zeros, jnp.zeros(3)) for _ in range(2))))
    assert raw_of_tree(fj.load_delta("a", fresh).tree) == raw(model)


def test_the_state_of_an_optimizer_does_not_cross() -> None:
    model = in_torch()
    tree, tx = in_jax(model), fj.optimizer(optax.adam(0.1))
    binding = ft.bind(torch.optim.AdamW(model.parameters()), model)
    ft.save_delta("a", model, optimizer=binding)
    fj.save_delta("b", tree, optimizer=tx, state=tx.init(tree))
    with pytest.raises(DeltaError, match=r"its format is 'frostline\.optimizer', not 'frostline\.optax'"):
        fj.load_delta("a", tree, optimizer=tx)
    with pytest.raises(DeltaError, match="it is not the state of an optimizer of PyTorch"):
        ft.load_delta("b", model, optimizer=binding)
    # Without it they load.
    assert raw_of_tree(fj.load_delta("a", tree).tree) == raw(model)
    ft.load_delta("b", model)
