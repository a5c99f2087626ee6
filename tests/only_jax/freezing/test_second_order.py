"""Second derivatives, forward mode and gradients of gradients of the trainable part (L11)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

import frostline.jax as fj
from only_jax.trees import Chain, Linear, Way, chain, contents, descend, each_way, inputs, linear, loss

X = inputs()


def of_ends(ends: tuple[Linear, Linear]) -> Array:
    """The loss of the model as a function of the trainable part, split by hand."""
    return loss(Chain((ends[0], chain().layers[1], ends[1])), X)


ENDS = (chain().layers[0], chain().layers[2])


def only_numbers(tree: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    return list(contents(jax.tree.leaves(tree)).values())


@each_way
def test_hessian(frozen: Way) -> None:
    """The Hessian has 12 + 12 trainable numbers, and no row or column for the 12 frozen ones."""
    trained, rest = fj.split(frozen(chain()))

    def of_trained(trained: Any) -> Array:
        return loss(fj.join(trained, rest), X)

    hessian = jax.jit(jax.hessian(of_trained))(trained)
    assert only_numbers(hessian) == only_numbers(jax.jit(jax.hessian(of_ends))(ENDS))
    assert len(jax.tree.leaves(hessian)) == 4 * 4
    flat, back = ravel_pytree(trained)
    assert jax.hessian(lambda flat: of_trained(back(flat)))(flat).shape == (24, 24)


@each_way
def test_forward_and_reverse_mode_agree_with_the_hand_split_model(frozen: Way) -> None:
    trained, rest = fj.split(frozen(chain()))

    def of_trained(trained: Any) -> Array:
        return loss(fj.join(trained, rest), X)

    assert only_numbers(jax.jacfwd(of_trained)(trained)) == only_numbers(jax.jacfwd(of_ends)(ENDS))
    assert only_numbers(jax.jacrev(of_trained)(trained)) == only_numbers(jax.jacrev(of_ends)(ENDS))
    assert only_numbers(jax.jvp(of_trained, (trained,), (trained,))) == only_numbers(jax.jvp(of_ends, (ENDS,), (ENDS,)))
    value, pull = jax.vjp(of_trained, trained)
    assert only_numbers(pull(jnp.ones_like(value))) == only_numbers(jax.grad(of_ends)(ENDS))


@each_way
def test_a_hessian_vector_product_through_grad(frozen: Way) -> None:
    """Forward mode over `grad` itself; the tangent of a frozen leaf reaches a stopped gradient."""
    tree = frozen(chain())
    ones = jax.tree.map(jnp.ones_like, tree)
    product = jax.jvp(lambda tree: fj.grad(loss)(tree, X), (tree,), (ones,))[1]
    expected = jax.jvp(jax.grad(of_ends), (ENDS,), (jax.tree.map(jnp.ones_like, ENDS),))[1]
    assert only_numbers(product) == only_numbers(expected)


@each_way
def test_a_tangent_of_a_frozen_leaf_changes_nothing(frozen: Way) -> None:
    tree = frozen(chain())
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(fj.mask(tree)), strict=True)
    moves_frozen = [jnp.zeros_like(leaf) if moves else leaf + 1 for leaf, moves in pairs]
    only_frozen = jax.tree.unflatten(jax.tree.structure(tree), moves_frozen)
    assert float(jax.jvp(lambda tree: loss(tree, X), (tree,), (only_frozen,))[1]) == 0.0
    unfrozen = chain()
    tangent = jax.tree.unflatten(jax.tree.structure(unfrozen), jax.tree.leaves(only_frozen))
    assert float(jax.jvp(lambda tree: loss(tree, X), (unfrozen,), (tangent,))[1]) != 0.0


def test_a_frozen_layer_has_a_hessian_over_its_input() -> None:
    def penalty(front: Linear, model: Any) -> Array:
        slope = jax.grad(lambda x: loss(model, x))(front(X))
        return (slope**2).sum()

    frozen, plain = fj.Frozen(chain()), chain()
    found, expected = jax.grad(penalty)(linear(7), frozen), jax.grad(penalty)(linear(7), plain)
    assert contents(found) == contents(expected)
    assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(penalty, argnums=1)(linear(7), frozen)))


class TestInnerLoop:
    """The differentiated function contains one step of descent on the leaves that it trains."""

    @each_way
    def test_the_outer_gradient_of_the_initial_leaves(self, frozen: Way) -> None:
        """The outer gradient is over the same leaves, through the step and its second derivatives.

        A loss gets the plain tree, so the inner loop is told the plan again; frozen uses are in the tree itself.
        """
        plan = fj.plan(frozen(chain()))

        def outer(tree: Any) -> Array:
            start = fj.follow(tree, plan)
            return loss(descend(start, fj.grad(loss)(start, X)), X)

        found = fj.grad(outer)(frozen(chain()))

        def by_hand(ends: tuple[Linear, Linear]) -> Array:
            return of_ends(jax.tree.map(lambda leaf, slope: leaf - slope, ends, jax.grad(of_ends)(ends)))

        assert only_numbers(found) == only_numbers(jax.grad(by_hand)(ENDS))

    @each_way
    def test_frozen_leaves_are_absent_from_the_outer_gradient(self, frozen: Way) -> None:
        """Plain ``jax.grad`` finds a zero gradient for frozen leaves."""

        def outer(second: Linear) -> Array:
            first, _, third = chain().layers
            tree = frozen(Chain((first, second, third)))
            return loss(descend(tree, fj.grad(loss)(tree, X)), X)

        assert not any(leaf.any() for leaf in jax.tree.leaves(jax.grad(outer)(chain().layers[1])))

    @each_way
    def test_the_frozen_part_can_be_learned_by_the_outer_loop_through_split(self, frozen: Way) -> None:
        """`split` chooses the leaves of the inner loop, and `strip` lets the outer gradient reach the rest."""

        def outer(second: Linear) -> Array:
            first, _, third = small().layers
            trained, rest = fj.split(frozen(Chain((first, second, third))))

            def inner(trained: Any) -> Array:
                return loss(fj.strip(fj.join(trained, rest)), X)

            moved = jax.tree.map(lambda leaf, slope: leaf - slope, trained, jax.grad(inner)(trained))
            return inner(moved)

        def by_hand(second: Linear) -> Array:
            first, _, third = small().layers

            def inner(ends: tuple[Linear, Linear]) -> Array:
                return loss(Chain((ends[0], second, ends[1])), X)

            slopes = jax.grad(inner)((first, third))
            return inner(jax.tree.map(lambda leaf, slope: leaf - slope, (first, third), slopes))

        second = small().layers[1]
        assert contents(jax.grad(outer)(second)) == contents(jax.grad(by_hand)(second))
        assert jax.grad(outer)(second).weight.any()


def small() -> Chain:
    """Weights that are powers of two, so small that their sixth powers are exact."""
    return jax.tree.map(lambda leaf: leaf / 8, chain())
