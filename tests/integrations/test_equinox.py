"""Equinox modules are frozen as any pytree is: without an adapter."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import frostline.jax as fj
from only_jax.bits import moved
from only_jax.trees import contents

KEYS = jax.random.split(jax.random.key(0), 4)
X = jnp.asarray(np.random.default_rng(0).integers(-2, 3, (2, 3)).astype(np.float32))
FREE = {"layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"}
HELD = {"layers.1.weight", "layers.1.bias"}


def layer(seed: int) -> eqx.nn.Linear:
    """A layer whose numbers are small integers, so that no order of summation matters."""
    made = eqx.nn.Linear(3, 3, key=KEYS[0])
    numbers = np.random.default_rng(seed).integers(-2, 3, (4, 3)).astype(np.float32)
    return eqx.tree_at(lambda made: (made.weight, made.bias), made, (jnp.asarray(numbers[1:]), jnp.asarray(numbers[0])))


def chain() -> eqx.nn.Sequential:
    return eqx.nn.Sequential([layer(1), layer(2), layer(3)])


def frozen_use(model: eqx.nn.Sequential) -> eqx.nn.Sequential:
    return eqx.tree_at(lambda model: model.layers[1], model, replace_fn=fj.Frozen)


def frozen_by_mark(model: eqx.nn.Sequential) -> Any:
    return fj.freeze(model, "layers[1]")


Way = Callable[[eqx.nn.Sequential], Any]
each_way = pytest.mark.parametrize("frozen", [frozen_use, frozen_by_mark], ids=["use", "mark"])
each_around = pytest.mark.parametrize("around", [lambda fn: fn, eqx.filter_jit], ids=["eager", "jit"])


def total(model: Any, x: Array) -> Array:
    return jax.vmap(model)(x).sum()


def loss(model: Any, x: Array) -> Array:
    return (jax.vmap(model)(x) ** 2).sum()


def difference(models: Any, x: Array) -> Array:
    return total(models[0], x) - total(models[1], x)


def by_name(gradient: Any) -> dict[str, bytes]:
    """The leaves of a gradient by name, as bytes; absent ones are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(fj.strip(gradient), eqx.is_array))
    named = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    return {path: np.asarray(leaf).tobytes() for path, leaf in named.items()}


def zeros(names: set[str]) -> dict[str, bytes]:
    return {name: bytes(4 * 3 * (3 if name.endswith("weight") else 1)) for name in names}


class TestSeed:
    """Rows 1 to 9: ``m0 = Sequential(l1, l2, l3)``, ``m1 = Sequential(l1, Frozen(l2), l3)``, one ``l2`` in both.

    Source: https://github.com/FluxML/Flux.jl/issues/1931
    """

    def test_rows_1_and_2_what_trains(self) -> None:
        assert fj.trainable(frozen_use(chain())).keys() == FREE

    @each_around
    def test_rows_3_to_5_the_gradient_of_one_model(self, around: Callable[..., Any]) -> None:
        model = chain()
        found = by_name(around(fj.grad(total))(frozen_use(model), X))
        unfrozen = by_name(around(fj.grad(total))(model, X))
        assert found == {name: unfrozen[name] for name in FREE}
        assert unfrozen.keys() == FREE | HELD
        assert zeros(FREE).items().isdisjoint(found.items())

    @each_around
    def test_rows_6_to_9_the_gradient_of_the_difference(self, around: Callable[..., Any]) -> None:
        model = chain()
        pair = fj.tie((model, frozen_use(model)))
        trained, rest = fj.split(pair)

        def of_trained(trained: Any, rest: Any) -> Array:
            return difference(fj.join(trained, rest), X)

        gradient = around(eqx.filter_grad(of_trained))(trained, rest)
        over_m0 = by_name(fj.strip(gradient)[0])
        free_of_m0 = {name: over_m0[name] for name in FREE}
        held_of_m0 = {name: over_m0[name] for name in HELD}
        assert free_of_m0 == zeros(FREE)
        assert zeros(HELD).items().isdisjoint(held_of_m0.items())
        # The layers of m1 are those of m0, and there once: what is asked over m1 is the free part of it.
        assert fj.trainable(pair).keys() == {f"0.{name}" for name in FREE | HELD}

    def test_rows_6_to_9_over_the_tied_pair(self) -> None:
        model = chain()
        over_m0, over_m1 = fj.strip(fj.grad(difference)(fj.tie((model, frozen_use(model))), X))
        free_of_m1 = {name: grad for name, grad in by_name(over_m1).items() if name in FREE}
        assert free_of_m1 == zeros(FREE) == {name: by_name(over_m0)[name] for name in FREE}

    def test_rows_7_and_8_with_the_frozen_model_differentiated_alone(self) -> None:
        model = chain()
        over_m1 = fj.grad(lambda m1, m0, x: difference((m0, m1), x))(frozen_use(model), model, X)
        assert by_name(over_m1).keys() == FREE

    def test_built_inside_of_the_function(self) -> None:
        def of_layers(layers: list[Any]) -> Array:
            first, second, third = layers
            plain = eqx.nn.Sequential([first, second, third])
            return difference((plain, eqx.nn.Sequential([first, fj.Frozen(second), third])), X)

        first, second, third = eqx.filter_grad(of_layers)([layer(1), layer(2), layer(3)])
        assert not any(leaf.any() for leaf in jax.tree.leaves((first, third)))
        assert all(leaf.any() for leaf in jax.tree.leaves(second))


@each_way
def test_the_mask_is_a_filter_spec(frozen: Way) -> None:
    tree = frozen(chain())
    plain = fj.strip(tree)
    mask = fj.mask(plain, frozen=fj.plan(tree))
    trained, rest = eqx.partition(plain, mask)
    assert contents(trained) == contents(fj.split(tree)[0])
    assert contents(rest) == contents(fj.split(tree)[1])
    joined = eqx.combine(trained, rest)
    assert jax.tree.structure(joined) == jax.tree.structure(plain)
    slopes = eqx.filter_grad(lambda trained, rest: loss(eqx.combine(trained, rest), X))(trained, rest)
    assert contents(slopes) == contents(fj.grad(loss)(tree, X))
    assert contents(eqx.filter(plain, mask)) == contents(trained)


def test_the_mask_of_a_plain_model_takes_its_arrays() -> None:
    """Activations, sizes and switches are left out, as ``eqx.is_inexact_array`` leaves them."""
    mlp = eqx.nn.MLP(3, 3, 4, 1, key=KEYS[0])
    assert jax.tree.leaves(fj.mask(mlp)) == jax.tree.leaves(jax.tree.map(eqx.is_inexact_array, mlp))


@each_way
@each_around
def test_gradients_are_those_of_the_hand_split_model(frozen: Way, around: Callable[..., Any]) -> None:
    plain = chain()
    spec = jax.tree.map(lambda _: True, plain)
    spec = eqx.tree_at(lambda spec: (spec.layers[1].weight, spec.layers[1].bias), spec, (False, False))
    trained, rest = eqx.partition(plain, spec)
    expected = around(eqx.filter_grad(lambda trained, rest, x: loss(eqx.combine(trained, rest), x)))(trained, rest, X)
    assert by_name(around(fj.grad(loss))(frozen(plain), X)) == by_name(expected)


@each_way
def test_the_transforms_of_equinox(frozen: Way) -> None:
    tree = frozen(chain())
    expected = contents(jax.vmap(chain())(X))
    assert contents(eqx.filter_jit(lambda tree, x: jax.vmap(tree)(x))(tree, X)) == expected
    assert contents(eqx.filter_vmap(tree)(X)) == expected
    assert contents(eqx.filter_vmap(lambda tree, x: tree(x), in_axes=(None, 0))(tree, X)) == expected
    assert contents(jax.vmap(eqx.filter_checkpoint(tree))(X)) == expected
    assert eqx.filter_eval_shape(tree, X[0]).shape == (3,)
    zero = eqx.filter_grad(loss)(tree, X)
    assert [zero.layers[1].weight.any(), zero.layers[1].bias.any()] == [False, False]
    assert zero.layers[0].weight.any()


@each_way
def test_an_ensemble(frozen: Way) -> None:
    def member(key: Array) -> Any:
        drawn = eqx.nn.Sequential([eqx.nn.Linear(3, 3, key=one) for one in jax.random.split(key, 3)])
        return frozen(jax.tree.map(lambda leaf: jnp.round(3 * leaf) if eqx.is_array(leaf) else leaf, drawn))

    ensemble = eqx.filter_vmap(member)(KEYS)
    assert {path: leaf.shape[0] for path, leaf in fj.trainable(ensemble).items()} == dict.fromkeys(FREE, 4)
    gradient = eqx.filter_vmap(fj.grad(loss), in_axes=(eqx.if_array(0), None))(ensemble, X)
    for number, key in enumerate(KEYS):
        one = jax.tree.map(lambda leaf, number=number: leaf[number], gradient)
        assert contents(one) == contents(fj.grad(loss)(member(key), X))


@each_way
def test_surgery(frozen: Way) -> None:
    """Arrays, layers and uses are put through windows; the rest stays frozen as it was."""
    tree = frozen(chain())
    zeroed = eqx.tree_at(lambda tree: tree.layers[0].weight, tree, jnp.zeros((3, 3)))
    assert moved(tree, zeroed) == {"layers.0.weight"}
    assert fj.plan(zeroed) == fj.plan(tree)
    inside = eqx.tree_at(lambda tree: tree.layers[1].weight, tree, jnp.zeros((3, 3)))
    assert moved(tree, inside) == {"layers.1.weight"}
    assert fj.plan(inside) == fj.plan(tree)
    more = eqx.tree_at(lambda tree: tree.layers[2], tree, replace_fn=fj.Frozen)
    assert fj.trainable(more).keys() == {"layers.0.weight", "layers.0.bias"}


@each_way
def test_a_step_with_optax_moves_what_trains_and_nothing_else(frozen: Way) -> None:
    tx, plan = optax.adamw(1e-2, weight_decay=0.1), fj.plan(frozen(chain()))
    tree = fj.strip(frozen(chain()))
    trained, rest = eqx.partition(tree, fj.mask(tree, frozen=plan))
    updates, _ = tx.update(fj.grad(loss, frozen=plan)(tree, X), tx.init(trained), trained)
    after = eqx.combine(eqx.apply_updates(trained, updates), rest)
    assert moved(tree, after) == FREE
    assert jax.tree.structure(after) == jax.tree.structure(tree)


@each_way
def test_saving_as_leaves(frozen: Way) -> None:
    """A file of the stripped tree is one of the model that was never frozen."""
    tree, file, other = frozen(chain()), io.BytesIO(), io.BytesIO()
    eqx.tree_serialise_leaves(file, fj.strip(tree))
    eqx.tree_serialise_leaves(other, chain())
    assert file.getvalue() == other.getvalue()
    file.seek(0)
    like = jax.tree.map(jnp.zeros_like, chain())
    restored = fj.follow(eqx.tree_deserialise_leaves(file, like), fj.plan(tree))
    assert moved(tree, restored) == set()
    assert fj.plan(restored) == fj.plan(tree)


@each_way
def test_printing_and_comparing(frozen: Way) -> None:
    tree = frozen(chain())
    assert eqx.tree_equal(tree, frozen(chain()))
    assert not eqx.tree_equal(tree, chain())
    assert eqx.tree_equal(fj.strip(tree), chain())
    assert "Linear(" in eqx.tree_pformat(tree)
    assert isinstance(tree, eqx.nn.Sequential)
    assert [isinstance(layer, eqx.nn.Linear) for layer in tree.layers] == [True, True, True]


class Language(eqx.Module):
    """A tied embedding in the way of Equinox: the head is looked up, not held."""

    shared: eqx.nn.Shared
    out: eqx.nn.Linear

    def __init__(self) -> None:
        embedding = eqx.nn.Embedding(5, 3, key=KEYS[0])
        head = eqx.nn.Linear(3, 5, use_bias=False, key=KEYS[1])
        self.shared = eqx.nn.Shared((embedding, head), lambda pair: pair[1].weight, lambda pair: pair[0].weight)
        self.out = eqx.nn.Linear(5, 2, key=KEYS[2])

    def __call__(self, token: Array) -> Array:
        embedding, head = self.shared()
        return self.out(head(embedding(token)))


def score(model: Any) -> Array:
    return (model(jnp.array(2)) ** 2).sum()


@pytest.mark.parametrize(
    "frozen",
    [
        lambda model: fj.freeze(model, "shared"),
        lambda model: eqx.tree_at(lambda model: model.shared, model, replace_fn=fj.Frozen),
    ],
    ids=["mark", "use"],
)
def test_shared_layers(frozen: Callable[[Any], Any]) -> None:
    """Frozen, the one array is frozen at both places; the expected gradient is that of the rest."""
    gradient = fj.grad(score)(frozen(Language()))
    expected = eqx.filter_grad(lambda out: score(eqx.tree_at(lambda model: model.out, Language(), out)))(Language().out)
    assert by_name(gradient) == {f"out.{name}": bits for name, bits in by_name(expected).items()}
    assert by_name(fj.grad(score)(Language())).keys() == {"shared.pytree.0.weight", "out.weight", "out.bias"}


def test_a_tied_array() -> None:
    """The pair of layers with one array: one parameter, and one gradient that is the sum over both uses."""
    embedding = eqx.nn.Embedding(5, 3, key=KEYS[0])
    head = eqx.tree_at(lambda head: head.weight, eqx.nn.Linear(3, 5, use_bias=False, key=KEYS[1]), embedding.weight)
    tied = fj.tie(eqx.nn.Sequential([embedding, head, eqx.nn.Linear(5, 2, key=KEYS[2])]))
    assert fj.trainable(tied).keys() == {"layers.0.weight", "layers.2.weight", "layers.2.bias"}

    def of_array(weight: Array) -> Array:
        return score(eqx.tree_at(lambda tied: (tied.layers[0].weight, tied.layers[1].weight), tied, (weight, weight)))

    gradient = fj.grad(score)(tied)
    assert contents(gradient.layers[0].weight) == contents(gradient.layers[1].weight)
    assert contents(gradient.layers[0].weight) == contents(jax.grad(of_array)(embedding.weight))
    assert fj.trainable(fj.freeze(tied, "layers[1]")).keys() == {"layers.2.weight", "layers.2.bias"}
