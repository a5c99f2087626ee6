"""Frozen trees under jit, vmap, checkpoints, control flow and user-defined rules (L11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array

import frostline.jax as fj
from only_jax.bits import moved
from only_jax.trees import FREE, Chain, Linear, Way, by_hand, chain, contents, descend, each_way, inputs, linear, loss

X = inputs()
TO_FREE = {".layers[0].bias", ".layers[0].weight", ".layers[2].bias", ".layers[2].weight"}


def test_the_gradients_as_literals() -> None:
    """All other tests compare with these values, which were computed by hand."""
    one, two = jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.array([[2.0, 0.0], [1.0, 1.0]])
    model = [Linear(one, jnp.zeros(2)), fj.Frozen(Linear(two, jnp.array([1.0, 0.0])))]
    value, gradient = fj.value_and_grad(lambda model, x: (model[1](model[0](x)) * jnp.array([1.0, 3.0])).sum())(
        model, jnp.array([3.0, -1.0])
    )
    assert float(value) == 27.0
    assert gradient[0].weight.tolist() == [[6.0, 12.0], [-2.0, -4.0]]
    assert gradient[0].bias.tolist() == [2.0, 4.0]
    assert (gradient[1].weight, gradient[1].bias) == (None, None)


@each_way
def test_eager(frozen: Way) -> None:
    gradient = fj.grad(loss)(frozen(chain()), X)
    assert contents(gradient) == contents(by_hand(X, chain()))
    assert contents(gradient).keys() == TO_FREE


@each_way
def test_as_an_argument_of_jit(frozen: Way) -> None:
    tree = frozen(chain())
    value, gradient = jax.jit(fj.value_and_grad(loss))(tree, X)
    assert contents(gradient) == contents(by_hand(X, chain()))
    assert contents(value) == contents(loss(chain(), X))
    assert jax.tree.structure(gradient) == jax.tree.structure(fj.split(tree)[0])


@each_way
def test_as_a_constant_of_jit(frozen: Way) -> None:
    """The tree is not an argument of the compiled function, and no gradient passes through it."""
    tree, front = frozen(chain()), linear(7)
    found = jax.jit(jax.grad(lambda front: loss(tree, front(X))))(front)
    assert contents(found) == contents(jax.grad(lambda front: loss(chain(), front(X)))(front))


@each_way
def test_jit_returns_a_tree_with_the_same_frozen_set(frozen: Way) -> None:
    tree = frozen(chain())
    back = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree))(tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert fj.plan(back) == fj.plan(tree)


@each_way
def test_plain_jax_grad_has_zeros_for_frozen_leaves(frozen: Way) -> None:
    gradient = jax.grad(loss)(frozen(chain()), X)
    assert [gradient.layers[1].weight.any(), gradient.layers[1].bias.any()] == [False, False]
    assert contents(fj.split(gradient)[0]) == contents(by_hand(X, chain()))


def test_without_freezing_the_second_layer_has_a_gradient() -> None:
    """Negative control: without freezing no gradient is zero."""
    gradient = fj.grad(loss)(chain(), X)
    assert [gradient.layers[1].weight.any(), gradient.layers[1].bias.any()] == [True, True]


def test_a_use_built_inside_the_function() -> None:
    first, second, third = chain().layers
    found = jax.grad(lambda layer: loss(Chain((first, fj.Frozen(layer), third)), X))(second)
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))
    both = jax.grad(lambda layer: loss(Chain((layer, fj.Frozen(layer), third)), X))(first)
    assert contents(both) == contents(jax.grad(lambda layer: loss(Chain((layer, first, third)), X))(first))


@each_way
def test_gradients_of_single_examples(frozen: Way) -> None:
    gradient = jax.vmap(fj.grad(loss), in_axes=(None, 0))(frozen(chain()), X)
    for row in range(2):
        assert contents(jax.tree.map(lambda leaf, row=row: leaf[row], gradient)) == contents(by_hand(X[row], chain()))


CALLS: dict[str, Callable[[Any], Callable[[Array], Array]]] = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "checkpoint": jax.checkpoint,
    "jacfwd": jax.jacfwd,
    "jacrev": jax.jacrev,
    "hessian": lambda model: jax.hessian(lambda x: loss(model, x)),
    "grad": lambda model: jax.grad(lambda x: loss(model, x)),
    "jvp": lambda model: lambda x: jax.jvp(model, (x,), (x,))[1],
    "linearize": lambda model: lambda x: jax.linearize(model, x)[1](x),
}


@each_way
@pytest.mark.parametrize("transform", CALLS.values(), ids=CALLS)
def test_a_frozen_tree_is_the_function_that_is_transformed(frozen: Way, transform: Callable[..., Any]) -> None:
    """Its gradient reaches only its input."""
    assert contents(transform(frozen(chain()))(X)) == contents(transform(chain())(X))
    assert contents(transform(fj.Frozen(chain()))(X)) == contents(transform(chain())(X))
    assert contents(transform(fj.freeze(chain()))(X)) == contents(transform(chain())(X))


@each_way
def test_checkpoints(frozen: Way) -> None:
    """The checkpoint is around a frozen use, around the whole model, inside a frozen use, or around the gradient."""

    def around_a_use(model: Any, x: Array) -> Array:
        first, second, third = model.layers
        return (third(jax.checkpoint(lambda layer, x: layer(x))(second, first(x))) ** 2).sum()

    expected = contents(by_hand(X, chain()))
    for tree in (frozen(chain()), frozen(_checkpointed())):
        assert contents(fj.grad(around_a_use)(tree, X)) == expected
        assert contents(fj.grad(jax.checkpoint(loss))(tree, X)) == expected
        assert contents(jax.checkpoint(fj.grad(loss))(tree, X)) == expected
        assert contents(jax.jit(jax.checkpoint(fj.grad(jax.checkpoint(loss))))(tree, X)) == expected


def _checkpointed() -> Chain:
    class Recomputed(Linear):
        def __call__(self, x: Array) -> Array:
            return jax.checkpoint(lambda weight, bias, x: x @ weight + bias)(self.weight, self.bias, x)

    jax.tree_util.register_dataclass(Recomputed, data_fields=["weight", "bias"], meta_fields=[])
    first, second, third = chain().layers
    return Chain((first, Recomputed(second.weight, second.bias), third))


@jax.custom_vjp
def _with_a_rule(layer: Linear, x: Array) -> Array:
    return x @ layer.weight + layer.bias


def _forward(layer: Linear, x: Array) -> tuple[Array, tuple[Linear, Array]]:
    return _with_a_rule(layer, x), (layer, x)


def _backward(kept: tuple[Linear, Array], slope: Array) -> tuple[Linear, Array]:
    """The rule returns seven times the gradient of the layer and five times that of the input, unlike JAX."""
    layer, x = kept
    return Linear(7 * x.T @ slope, 7 * slope.sum(0)), 5 * slope @ layer.weight.T


_with_a_rule.defvjp(_forward, _backward)


def _ruled() -> Chain:
    class Ruled(Linear):
        def __call__(self, x: Array) -> Array:
            return _with_a_rule(Linear(self.weight, self.bias), x)

    jax.tree_util.register_dataclass(Ruled, data_fields=["weight", "bias"], meta_fields=[])
    first, second, third = chain().layers
    return Chain((first, Ruled(second.weight, second.bias), third))


@each_way
@pytest.mark.parametrize("around", [lambda fn: fn, jax.jit], ids=["eager", "jit"])
def test_a_layer_with_a_user_defined_rule(frozen: Way, around: Callable[..., Any]) -> None:
    """The input gets the gradient of the rule, and the layer gets none."""
    tree = frozen(_ruled())
    gradient = around(fj.grad(loss))(tree, X)
    plain = by_hand(X, chain())
    expected = Chain((jax.tree.map(lambda leaf: 5 * leaf, plain.layers[0]), Linear(None, None), plain.layers[2]))
    assert contents(gradient) == contents(expected)
    unfrozen = fj.grad(loss)(_ruled(), X).layers[1].weight
    assert contents(unfrozen) == contents(7 * fj.grad(loss)(chain(), X).layers[1].weight)


@each_way
def test_control_flow(frozen: Way) -> None:
    def chosen(model: Any, x: Array) -> Array:
        y = jax.lax.cond(x.sum() > 100, lambda model, x: -model(x), lambda model, x: model(x), model, x)
        y = jax.lax.switch(1, [lambda model, y: -y, lambda model, y: y], model, y)
        return (y**2).sum()

    assert contents(jax.jit(fj.grad(chosen))(frozen(chain()), X)) == contents(by_hand(X, chain()))


@each_way
def test_a_training_loop_inside_of_a_scan(frozen: Way) -> None:
    """The tree is the carry; its frozen part does not change, and everything else moves."""

    def step(tree: Any, x: Array) -> tuple[Any, Array]:
        value, gradient = fj.value_and_grad(loss)(tree, x)
        return descend(tree, jax.tree.map(lambda slope: slope / 2**10, gradient)), value

    tree = frozen(chain())
    trained, values = jax.jit(lambda tree: jax.lax.scan(step, tree, jnp.stack([X, X])))(tree)
    assert jax.tree.structure(trained) == jax.tree.structure(tree)
    assert moved(tree, trained) == FREE
    assert float(values[0]) == float(loss(chain(), X))


@each_way
def test_while_and_fori_carry_a_frozen_tree(frozen: Way) -> None:
    tree = frozen(chain())
    grown = jax.lax.fori_loop(0, 3, lambda _, tree: jax.tree.map(lambda leaf: leaf + 1, tree), tree)
    again, _ = jax.lax.while_loop(
        lambda carry: carry[1] < 3,
        lambda carry: (jax.tree.map(lambda leaf: leaf + 1, carry[0]), carry[1] + 1),
        (tree, 0),
    )
    assert contents(grown) == contents(again) == contents(jax.tree.map(lambda leaf: leaf + 3, tree))
    assert fj.plan(grown) == fj.plan(again) == fj.plan(tree)


def test_aux_and_keywords_pass_through_jit() -> None:
    def with_aux(model: Any, x: Array, *, scale: float) -> tuple[Array, Array]:
        y = model(x) * scale
        return (y**2).sum(), y

    tree = fj.freeze(chain(), "layers[1]")
    (value, y), gradient = jax.jit(fj.value_and_grad(with_aux, has_aux=True))(tree, X, scale=2.0)
    assert contents(y) == contents(2 * chain()(X))
    assert contents(value) == contents(4 * loss(chain(), X))
    assert contents(gradient) == contents(jax.tree.map(lambda leaf: 4 * leaf, by_hand(X, chain())))
