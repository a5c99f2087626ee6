"""Frozen trees on eight devices, and donated (L5, L11)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import Array
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import frostline.jax as fj
from only_jax.trees import Way, by_hand, chain, contents, each_way, inputs, loss

ROWS = inputs(rows=16)


def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))


@each_way
@pytest.mark.parametrize("at_once", [True, False], ids=["tree", "parts"])
def test_the_sum_of_gradients_over_devices_equals_that_of_one_device(frozen: Way, at_once: bool) -> None:
    tree = frozen(chain())

    def of_tree(tree: Any, x: Array) -> Any:
        return jax.lax.psum(fj.grad(loss)(tree, x), "devices")

    def of_parts(trained: Any, rest: Any, x: Array) -> Any:
        slopes = jax.grad(lambda trained: loss(fj.join(trained, rest), x))(trained)
        return jax.lax.psum(slopes, "devices")

    arguments = (tree,) if at_once else fj.split(tree)
    specs = (*(P() for _ in arguments), P("devices"))
    step = jax.shard_map(of_tree if at_once else of_parts, mesh=mesh(), in_specs=specs, out_specs=P(), check_vma=False)
    gradient = jax.jit(step)(*arguments, ROWS)
    assert contents(gradient) == contents(by_hand(ROWS, chain()))
    assert (gradient.layers[1].weight, gradient.layers[1].bias) == (None, None)


@each_way
def test_the_sum_that_jax_inserts_itself(frozen: Way) -> None:
    """If JAX tracks values that vary over devices, it sums the gradients of all others automatically."""
    step = jax.shard_map(fj.grad(loss), mesh=mesh(), in_specs=(P(), P("devices")), out_specs=P())
    assert contents(jax.jit(step)(frozen(chain()), ROWS)) == contents(by_hand(ROWS, chain()))


def test_without_the_sum_a_device_has_its_own_gradient_only() -> None:
    """Negative control: the sum above is necessary."""
    step = jax.shard_map(
        lambda tree, x: jax.tree.map(lambda leaf: leaf[None], fj.grad(loss)(tree, x)),
        mesh=mesh(),
        in_specs=(P(), P("devices")),
        out_specs=P("devices"),
        check_vma=False,
    )
    gradient = jax.jit(step)(fj.freeze(chain(), "layers[1]"), ROWS)
    first = jax.tree.map(lambda leaf: leaf[0], gradient)
    assert contents(first) == contents(by_hand(ROWS[:2], chain()))
    assert contents(first) != contents(by_hand(ROWS, chain()))


def specs(tree: Any) -> list[P]:
    leaves = jax.tree.leaves(tree)
    assert all(isinstance(leaf.sharding, NamedSharding) for leaf in leaves)
    return [leaf.sharding.spec for leaf in leaves]


def on_devices(tree: Any) -> Any:
    layout = {2: P(None, "devices"), 1: P("devices")}
    return jax.device_put(tree, jax.tree.map(lambda leaf: NamedSharding(mesh(), layout[leaf.ndim]), tree))


@each_way
def test_shardings_are_kept(frozen: Way) -> None:
    """The columns of every weight are on eight devices, and so are those of all results."""
    tree, plain = on_devices(frozen(chain(8))), on_devices(chain(8))
    one_layer = [P(None, "devices"), P("devices")]
    trained, rest = fj.split(tree)
    assert specs(tree) == specs(fj.strip(tree)) == specs(fj.join(trained, rest)) == 3 * one_layer
    assert specs(fj.thaw(tree)) == specs(fj.freeze(tree, "layers[0]")) == 3 * one_layer
    assert (specs(trained), specs(rest)) == (2 * one_layer, one_layer)
    gradient = fj.grad(loss)(tree, inputs(8))
    assert specs(gradient) == specs(by_hand(inputs(8), plain))
    like_trained = jax.tree.map(lambda leaf: leaf.sharding, trained)
    asked_for = jax.jit(fj.grad(loss), out_shardings=like_trained)(tree, inputs(8))
    assert specs(asked_for) == 2 * one_layer
    assert contents(asked_for) == contents(gradient) == contents(by_hand(inputs(8), chain(8)))


@each_way
def test_shardings_as_trees_of_the_same_structure(frozen: Way) -> None:
    tree = frozen(chain(8))
    replicated = jax.tree.map(lambda _: NamedSharding(mesh(), P()), tree)
    step = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), in_shardings=(replicated,), out_shardings=replicated
    )
    assert specs(step(tree)) == 6 * [P()]
    assert fj.plan(step(tree)) == fj.plan(tree)


class TestDonation:
    """A donated buffer is deleted, so it can be donated only once."""

    def test_donating_the_trainable_part_keeps_the_frozen_part(self) -> None:
        tree = fj.freeze(jax.tree.map(jnp.copy, chain()), "layers[1]")
        trained, rest = fj.split(tree)
        before = contents(rest)
        moved = _grown(trained)
        assert [leaf.is_deleted() for leaf in jax.tree.leaves(trained)] == 4 * [True]
        assert contents(rest) == before
        joined = fj.join(moved, rest)
        assert [bool((new == old).all()) for new, old in zip(*map(_leaves, (joined, chain())), strict=True)] == [
            False,
            False,
            True,
            True,
            False,
            False,
        ]

    @pytest.mark.filterwarnings("ignore:.*donat.*:UserWarning")
    def test_donating_a_tied_tree_fails(self) -> None:
        """Negative control for the two tests below."""
        with pytest.raises(jax.errors.JaxRuntimeError, match="Attempt to donate the same buffer twice"):
            _grown(fj.strip(_tied()))

    def test_donating_the_trainable_part_of_a_tied_tree(self) -> None:
        trained, rest = fj.split(_tied())
        grown = fj.strip(fj.join(_grown(trained), rest))
        assert grown["embed"] is grown["head"]["w"]
        assert contents(grown) == contents(jax.tree.map(lambda leaf: leaf + 1, fj.strip(_tied())))

    def test_donating_a_tied_tree_with_marks(self) -> None:
        grown = fj.strip(_grown(fj.freeze(_tied(), "other")))
        assert grown["embed"] is grown["head"]["w"]
        assert contents(grown) == contents(jax.tree.map(lambda leaf: leaf + 1, fj.strip(_tied())))

    def test_donating_an_array_with_a_trainable_and_a_frozen_use(self) -> None:
        """The frozen use refers to the layer, so it sees the new values of the layer."""
        layer = {"w": jnp.ones((2, 2))}
        trained, rest = fj.split(fj.tie([layer, fj.Frozen(layer)]))
        grown = fj.join(_grown(trained), rest)
        assert layer["w"].is_deleted()
        assert grown[1]["w"].tolist() == [[2.0, 2.0], [2.0, 2.0]]


_grown = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)


def _leaves(tree: Any) -> list[Array]:
    return jax.tree.leaves(tree)


def _tied() -> dict[str, Any]:
    shared = jnp.arange(4.0).reshape(2, 2)
    return fj.tie({"embed": shared, "head": {"w": shared}, "other": jnp.ones(2)})
