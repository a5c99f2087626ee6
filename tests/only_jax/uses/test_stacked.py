"""Ensembles that vmap builds, and layers that are stacked for a scan (L11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array

import frostline.jax as fj
from only_jax.trees import Chain, Linear, Way, by_hand, chain, contents, each_way, frozen_use, inputs, linear, loss

X = inputs()
KEYS = jax.random.split(jax.random.key(0), 4)


def drawn(key: Array) -> Linear:
    weight, bias = jax.random.split(key)
    return Linear(
        jax.random.randint(weight, (3, 3), -2, 3).astype(float), jax.random.randint(bias, (3,), -2, 3).astype(float)
    )


def member(key: Array) -> Chain:
    return Chain(tuple(map(drawn, jax.random.split(key, 3))))


def of_member(number: int, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[number], tree)


@each_way
@pytest.mark.parametrize("around", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
def test_an_ensemble_of_models_that_were_frozen_when_built(frozen: Way, around: Callable[..., Any]) -> None:
    """The models are frozen inside the vmap that builds them: each has its own weights, and all have one plan."""
    ensemble = jax.vmap(lambda key: frozen(member(key)))(KEYS)
    assert jax.tree.structure(ensemble) == jax.tree.structure(frozen(chain()))
    assert fj.plan(ensemble) == fj.plan(frozen(chain()))
    assert {path: leaf.shape for path, leaf in fj.trainable(ensemble).items()} == {
        "layers.0.weight": (4, 3, 3),
        "layers.0.bias": (4, 3),
        "layers.2.weight": (4, 3, 3),
        "layers.2.bias": (4, 3),
    }
    gradient = around(jax.vmap(fj.grad(loss), in_axes=(0, None)))(ensemble, X)
    for number, key in enumerate(KEYS):
        assert contents(of_member(number, gradient)) == contents(by_hand(X, member(key)))


@each_way
def test_an_ensemble_that_is_frozen_afterwards(frozen: Way) -> None:
    ensemble = frozen(jax.vmap(member)(KEYS))
    gradient = jax.vmap(fj.grad(loss), in_axes=(0, None))(ensemble, X)
    for number, key in enumerate(KEYS):
        assert contents(of_member(number, gradient)) == contents(by_hand(X, member(key)))


@each_way
def test_an_ensemble_around_one_frozen_part(frozen: Way) -> None:
    """Several heads share one body; the mask marks the leaves that are stacked."""
    tree = frozen(chain())
    trained, rest = fj.split(tree)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1]), trained)
    axes = jax.tree.map(lambda moves: 0 if moves else None, fj.mask(fj.strip(tree), frozen=fj.plan(tree)))
    differentiated = fj.grad(loss, frozen=fj.plan(tree))
    by_axes = jax.vmap(differentiated, in_axes=(axes, None))(fj.strip(fj.join(many, rest)), X)
    by_parts = jax.vmap(lambda trained: fj.grad(loss)(fj.join(trained, rest), X))(many)
    assert contents(by_axes) == contents(by_parts)
    first, second, third = chain().layers
    other = Chain(tuple(jax.tree.map(lambda leaf: leaf + 1, end) for end in (first, third)))
    for number, (start, end) in enumerate([(first, third), other.layers]):
        assert contents(of_member(number, by_axes)) == contents(by_hand(X, Chain((start, second, end))))


def stacked(*layers: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)


def scanned(layers: Any, x: Array) -> Array:
    return jax.lax.scan(lambda x, layer: (layer(x), None), x, layers)[0]


def ends_around_a_scan(model: Any, x: Array) -> Array:
    return (model["end"](scanned(model["stack"], model["start"](x))) ** 2).sum()


def with_stack(stack: Any) -> dict[str, Any]:
    return {"start": linear(1), "stack": stack, "end": linear(2)}


LAYERS = [linear(seed) for seed in (3, 4, 5)]
STACKS: dict[str, Callable[[], Any]] = {
    "a frozen stack": lambda: with_stack(fj.Frozen(stacked(*LAYERS))),
    "a stack of frozen layers": lambda: with_stack(stacked(*map(fj.Frozen, LAYERS))),
    "a stack of marked layers": lambda: with_stack(stacked(*map(fj.freeze, LAYERS))),
    "a marked stack": lambda: with_stack(fj.freeze(stacked(*LAYERS))),
    "marks around it all": lambda: fj.freeze(with_stack(stacked(*LAYERS)), "stack"),
}


@pytest.mark.parametrize("made", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("around", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
def test_a_scan_over_frozen_layers(made: Callable[[], Any], around: Callable[..., Any]) -> None:
    gradient = around(fj.grad(ends_around_a_scan))(made(), X)

    def of_ends(start: Linear, end: Linear) -> Array:
        return ends_around_a_scan({"start": start, "stack": stacked(*LAYERS), "end": end}, X)

    start, end = jax.grad(of_ends, argnums=(0, 1))(linear(1), linear(2))
    assert contents(gradient["start"]) == contents(start)
    assert contents(gradient["end"]) == contents(end)
    assert (gradient["stack"].weight, gradient["stack"].bias) == (None, None)


def test_a_scan_over_trainable_layers_gives_them_a_gradient() -> None:
    """The negative control."""
    gradient = fj.grad(ends_around_a_scan)(with_stack(stacked(*LAYERS)), X)
    assert [bool(gradient["stack"].weight[number].any()) for number in range(3)] == [True, True, True]


def test_a_scan_over_layers_that_are_frozen_in_part() -> None:
    """The stacked layers have the marks of each layer."""
    layers = stacked(*(fj.freeze(layer, "weight") for layer in LAYERS))
    assert sorted(fj.trainable(layers)) == ["bias"]

    def total(layers: Any) -> Array:
        return (scanned(layers, X) ** 2).sum()

    gradient = jax.jit(fj.grad(total))(layers)
    weight = stacked(*LAYERS).weight
    expected = jax.grad(lambda bias: total(Linear(weight, bias)))(stacked(*LAYERS).bias)
    assert gradient.weight is None
    assert contents(gradient.bias) == contents(expected)


def test_a_scan_with_checkpoints_and_unrolling() -> None:
    def total(model: Any, x: Array, unroll: int) -> Array:
        step = jax.checkpoint(lambda x, layer: (layer(x), None))
        middle = jax.lax.scan(step, model["start"](x), model["stack"], unroll=unroll)[0]
        return (model["end"](middle) ** 2).sum()

    tree = with_stack(fj.Frozen(stacked(*LAYERS)))
    expected = contents(fj.grad(ends_around_a_scan)(tree, X))
    assert [contents(fj.grad(total)(tree, X, unroll)) == expected for unroll in (1, 3)] == [True, True]


def test_one_frozen_layer_scanned_over_many_inputs() -> None:
    use, steps = frozen_use(chain()), jnp.stack([X, 2 * X])

    def total(model: Any, steps: Array) -> Array:
        return (jax.lax.scan(lambda state, x: (model(x), state), X, steps)[0] ** 2).sum()

    assert contents(fj.grad(total)(use, steps)) == contents(by_hand(2 * X, chain()))
