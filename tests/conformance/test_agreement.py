"""Agreement of the front ends: the same net, numbers and plan give the same results in PyTorch and in JAX."""

from __future__ import annotations

import json
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
from conformance.bench_jax import bench as jax_bench
from conformance.bench_torch import bench as torch_bench
from frostline import UnsupportedError

# Both compute in float32, and add in another order.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}
SELECTIONS = [("[0]",), ("[1]",), ("**", "![2]"), ("**.bias",), ("{0,2}.weight",), ("[1:]", "!2.bias")]

each_selection = pytest.mark.parametrize("selectors", SELECTIONS, ids=["-".join(row) for row in SELECTIONS])


def nets() -> tuple[nn.Module, Any]:
    return torch_bench.chain(*torch_bench.layers()), jax_bench.chain(*jax_bench.layers())


def numbers(values: dict[str, bytes]) -> dict[str, np.ndarray]:
    return {path: np.frombuffer(data, np.float32) for path, data in values.items()}


def agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_allclose(one[path], other[path], **TOLERANCE, err_msg=path)


def test_the_numbers_are_equal_before_any_freeze() -> None:
    ours, theirs = nets()
    agree(numbers(torch_bench.values(ours)), numbers(jax_bench.values(theirs)))


@each_selection
def test_plans_have_equal_bytes(selectors: tuple[str, ...]) -> None:
    ours, theirs = nets()
    ft.freeze(ours, *selectors)
    assert ft.plan(ours).to_json() == fj.plan(fj.freeze(theirs, *selectors)).to_json()


@each_selection
def test_reports_have_equal_bytes(selectors: tuple[str, ...]) -> None:
    ours, theirs = nets()
    ft.freeze(ours, *selectors)
    theirs = fj.freeze(theirs, *selectors)
    assert json.dumps(ft.report(ours).to_dict()) == json.dumps(fj.report(theirs).to_dict())
    assert str(ft.report(ours)) == str(fj.report(theirs))


@each_selection
def test_previews_and_blocks_are_equal(selectors: tuple[str, ...]) -> None:
    ours, theirs = nets()
    assert str(ft.select(ours, *selectors)) == str(fj.select(theirs, *selectors))
    assert ft.blocks(ours) == fj.blocks(theirs) == ["0", "1", "2"]
    assert ft.plan(ours).frozen == fj.plan(theirs).frozen == frozenset()


def test_texts_of_selectors_mean_the_same() -> None:
    ours, theirs = nets()
    for text in ("of_type('Linear')", "own('1')", "regex('.*bias') - glob('[0]')"):
        ft.freeze(ours, text).undo()
        assert ft.select(ours, text).paths == fj.select(theirs, text).paths


@pytest.mark.parametrize("selector", ["[0][0]", "[0][:1]", "[-1].weight[0]"])
def test_an_index_on_parameters_is_refused_alike(selector: str) -> None:
    ours, theirs = nets()
    with pytest.raises(UnsupportedError) as one:
        ft.freeze(ours, selector)
    with pytest.raises(UnsupportedError) as other:
        fj.freeze(theirs, selector)
    assert str(one.value) == str(other.value)


def test_reports_of_uses_and_of_held_modules_have_equal_bytes() -> None:
    ours = nn.Sequential(*torch_bench.layers()[:2], ft.Frozen(torch_bench.layers()[2]))
    theirs = plain_net.Sequential(*jax_bench.layers()[:2], fj.Frozen(jax_bench.layers()[2]))
    ft.freeze(ours, "[0]")
    assert json.dumps(ft.report(ours).to_dict()) == json.dumps(fj.report(fj.freeze(theirs, "[0]")).to_dict())


def test_reports_of_different_plans_differ() -> None:
    """The negative control."""
    ours, theirs = nets()
    ft.freeze(ours, "[0]")
    assert json.dumps(ft.report(ours).to_dict()) != json.dumps(fj.report(fj.freeze(theirs, "[1]")).to_dict())


def test_each_front_end_follows_a_plan_of_the_other() -> None:
    ours, theirs = nets()
    ft.freeze(ours, "[:2]")
    assert fj.plan(fj.follow(theirs, ft.plan(ours))) == ft.plan(ours)


@each_selection
def test_gradients_agree(selectors: tuple[str, ...]) -> None:
    ours, theirs = nets()
    ft.freeze(ours, *selectors)
    theirs = fj.freeze(theirs, *selectors)
    agree(
        dict(torch_bench.gradient([(1.5, ours)], of=ours)),
        dict(jax_bench.gradient([(1.5, theirs)], of=theirs)),
    )


@each_selection
def test_weights_agree_after_twenty_steps_of_adamw(selectors: tuple[str, ...]) -> None:
    ours, theirs = nets()
    ft.freeze(ours, *selectors)
    theirs = fj.freeze(theirs, *selectors)
    batch = np.sin(np.arange(20, dtype=np.float32)).reshape(5, 4)
    ours, theirs = _trained_in_torch(ours, batch), _trained_in_jax(theirs, batch)
    agree(numbers(torch_bench.values(ours)), numbers(jax_bench.values(theirs)))
    assert torch_bench.values(ours) != torch_bench.values(nets()[0])


def _trained_in_torch(model: nn.Module, batch: np.ndarray) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.from_numpy(batch)).square().sum().backward()
        optimizer.step()
    return model


def _trained_in_jax(model: Any, batch: np.ndarray) -> Any:
    tx = fj.optimizer(optax.adamw(0.01, weight_decay=0.1))
    state = tx.init(model)

    @jax.jit
    def step(model: Any, state: Any) -> tuple[Any, Any]:
        gradient = jax.grad(lambda model: jnp.square(model(batch)).sum())(model)
        updates, state = tx.update(gradient, state, model)
        return optax.apply_updates(model, updates), state

    for _ in range(20):
        model, state = step(model, state)
    return model
