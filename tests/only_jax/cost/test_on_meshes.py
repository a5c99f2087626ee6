"""Costs, lean losses and frost lines of models on eight devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import frostline.jax as fj
from only_jax.cost.costed import data, stack, weights

gelu = stack(jax.nn.gelu)
TREE = fj.freeze(weights(8, 8), "[1:3]")
ROWS = data(16, 8)
kinds = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])


def mesh(kind: AxisType = AxisType.Auto) -> Mesh:
    return jax.make_mesh((8,), ("rows",), axis_types=(kind,))


def divided(kind: AxisType) -> tuple[Any, Array]:
    """Puts the tree on every device, and divides the batch."""
    on = mesh(kind)
    return jax.device_put(TREE, NamedSharding(on, P())), jax.device_put(ROWS, NamedSharding(on, P("rows")))


def over_devices(loss: Any) -> Any:
    def local(tree: Any, x: Array) -> Array:
        return lax.psum(loss(tree, x), "rows")

    return lambda tree, x: jax.shard_map(local, mesh=mesh(), in_specs=(P(), P("rows")), out_specs=P())(tree, x)


@kinds
def test_lean_with_shardings_in_types(kind: AxisType) -> None:
    tree, x = divided(kind)
    with jax.set_mesh(mesh(kind)):
        plain, lean = (jax.jit(fj.grad(fn))(tree, x) for fn in (gelu, fj.lean(gelu)))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(lean), strict=True):
        assert one.sharding == other.sharding
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    # As on one device.
    assert [fj.cost(fn, tree, x).now.saved_bytes for fn in (gelu, fj.lean(gelu))] == [11264, 5120]


def test_lean_on_each_device_by_itself() -> None:
    first, *rest = weights(8, 8)

    def slope(loss: Any) -> Array:
        def local(first: Array, rest: list[Array], x: Array) -> Array:
            return jax.grad(lambda w: loss([w, *rest], x))(first)

        step = jax.shard_map(local, mesh=mesh(), in_specs=(P(), P(), P("rows")), out_specs=P())
        found: Array = jax.jit(step)(first, rest, ROWS)
        return found

    np.testing.assert_allclose(slope(fj.lean(gelu)), slope(gelu), rtol=1e-5, atol=1e-7)


def test_the_work_of_every_device_is_counted() -> None:
    """The same as on one device: each device computes its own rows."""
    found, plain = (fj.cost(loss, TREE, ROWS).now for loss in (over_devices(gelu), gelu))
    assert found.forward_flops == plain.forward_flops == 4 * 2 * 16 * 8 * 8
    assert found.input_gradient_flops == plain.input_gradient_flops
    assert found.weight_gradient_flops == plain.weight_gradient_flops


def test_work_that_several_devices_repeat_is_counted_twice() -> None:
    """The repeated part uses the name of a mesh axis."""

    def layer(w: Array, x: Array) -> Array:
        return jnp.tanh(x @ w) - lax.pmean(x.mean(), "rows")

    def loss(tree: Any, x: Array) -> Array:
        for w in tree:
            x = jax.checkpoint(layer)(w, x)
        return (x**2).sum()

    assert fj.cost(over_devices(loss), TREE, ROWS).now.forward_flops == 2 * 4 * 2 * 16 * 8 * 8


@kinds
def test_a_line_with_a_divided_batch(kind: AxisType) -> None:
    tree, x = divided(kind)
    tree = fj.freeze(tree, "[0]")
    line = fj.frostline(lambda tree, x: jnp.tanh(jnp.tanh(x @ tree[0]) @ tree[3]), tree, x)
    (value,) = line.below(x)
    assert value.sharding.is_equivalent_to(x.sharding, 2)
    np.testing.assert_array_equal(line.above(tree, value), jnp.tanh(jnp.tanh(x @ tree[0]) @ tree[3]))
