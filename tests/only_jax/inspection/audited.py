"""Losses with hidden stops, each with its reached, stopped and unused parameters.

All parameters are two ones under the names a, b and c, and the data is one and two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

Params = dict[str, jax.Array]
stop = lax.stop_gradient


def plain(p: Params, x: jax.Array) -> jax.Array:
    return (jnp.tanh(p["a"] * x) + p["b"]).sum()


def stopped_at_use(p: Params, x: jax.Array) -> jax.Array:
    return (stop(p["a"]) * x * p["b"]).sum()


def stopped_once_of_twice(p: Params, x: jax.Array) -> jax.Array:
    return (stop(p["a"]) * x * p["b"] + p["a"]).sum()


def stopped_above(p: Params, x: jax.Array) -> jax.Array:
    """Everything below a stop is stopped as well."""
    return (stop(p["a"] * x + p["b"]) * p["c"]).sum()


@jax.jit
def _inner(w: jax.Array, x: jax.Array) -> jax.Array:
    return jax.jit(lambda w: jnp.exp(stop(w)))(w) * x


def in_nested_jits(p: Params, x: jax.Array) -> jax.Array:
    return jax.jit(lambda p: _inner(p["a"], x) * p["b"])(p).sum()


def in_scan(p: Params, x: jax.Array) -> jax.Array:
    def layer(carry: jax.Array, row: Any) -> tuple[jax.Array, None]:
        return jnp.tanh(carry * stop(row[0]) + row[1] + p["c"]), None

    return lax.scan(layer, x, (p["a"], p["b"]))[0].sum()


def in_the_carry_of_scan(p: Params, x: jax.Array) -> jax.Array:
    """The analysis needs two rounds to find that `a` arrives, and `a` is stopped on its way."""

    def layer(carry: Any, _: Any) -> tuple[Any, None]:
        one, two, three = carry
        return (one, stop(one) + p["b"], two + three), None

    start = p["a"], jnp.zeros(2), jnp.zeros(2)
    return lax.scan(layer, start, None, length=3)[0][2].sum()


def late_in_the_carry(p: Params, x: jax.Array) -> jax.Array:
    """The same without a stop."""

    def layer(carry: Any, _: Any) -> tuple[Any, None]:
        one, two, three = carry[:3]
        return (one, one, two, three), None

    start = p["a"], p["b"], jnp.zeros(2), jnp.zeros(2)
    return lax.scan(layer, start, None, length=3)[0][3].sum()


def in_a_scan_without_steps(p: Params, x: jax.Array) -> jax.Array:
    return lax.scan(lambda c, _: (stop(c) + p["b"], None), p["a"], None, length=0)[0].sum()


def in_nested_scans(p: Params, x: jax.Array) -> jax.Array:
    def outer(carry: jax.Array, _: Any) -> tuple[jax.Array, None]:
        return lax.fori_loop(0, 2, lambda _, c: jnp.sin(c * stop(p["a"]) + p["b"]), carry), None

    return lax.scan(outer, x, None, length=2)[0].sum()


def in_remat(p: Params, x: jax.Array) -> jax.Array:
    @jax.checkpoint
    def layer(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sin(jnp.sin(stop(a) * x) * b)

    return layer(p["a"], p["b"]).sum()


def in_a_remat_of_scan(p: Params, x: jax.Array) -> jax.Array:
    return jax.checkpoint(in_scan, policy=jax.checkpoint_policies.dots_saveable)(p, x)


def in_vmap(p: Params, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda x: (stop(p["a"]) * p["b"] * x).sum())(x).sum()


def _with_rule(backwards: Callable[..., Any]) -> Callable[..., jax.Array]:
    @jax.custom_vjp
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return a * b

    product.defvjp(lambda a, b: (a * b, (a, b)), backwards)
    return product


_none = _with_rule(lambda kept, g: (None, g * kept[0]))
_zeros = _with_rule(lambda kept, g: (jnp.zeros_like(g), g * kept[0]))
_zeros_of_the_host = _with_rule(lambda kept, g: (np.zeros(2, np.float32), g * kept[0]))
_from_nothing = _with_rule(lambda kept, g: (jnp.ones(2), kept[1]))
_from_a_condition = _with_rule(lambda kept, g: ((kept[0] > 0).astype(jnp.float32), g))
_all_zeros = _with_rule(lambda kept, g: (jnp.zeros_like(g), jnp.zeros_like(g)))


def none_by_rule(p: Params, x: jax.Array) -> jax.Array:
    return _none(p["a"] * x, p["b"]).sum()


def zeros_by_rule(p: Params, x: jax.Array) -> jax.Array:
    return _zeros(p["a"], p["b"]).sum()


def zeros_of_the_host_by_rule(p: Params, x: jax.Array) -> jax.Array:
    return _zeros_of_the_host(p["a"], p["b"]).sum()


def far_behind_a_zero_rule(p: Params, x: jax.Array) -> jax.Array:
    """A zero stays zero through everything below."""
    first = jnp.outer(p["a"], x) @ x
    second = jnp.tanh(jnp.exp(first)) / (1 + jax.nn.relu(first))
    third = jnp.concatenate([second[1:], jnp.linalg.norm(second)[None]])[::-1][jnp.array([1, 0])]
    fourth = jnp.ones(2).at[jnp.array([1, 0])].add(jax.nn.softmax(third))
    return _zeros(fourth**2, p["b"]).sum()


def a_zero_rule_in_scan(p: Params, x: jax.Array) -> jax.Array:
    def layer(carry: jax.Array, row: Any) -> tuple[jax.Array, None]:
        return _zeros(carry * row[0], p["b"]), None

    return lax.scan(jax.checkpoint(layer), x * p["c"], (p["a"],))[0].sum()


def from_nothing_by_rule(p: Params, x: jax.Array) -> jax.Array:
    """A rule may ignore its gradient and return another one."""
    return _from_nothing(p["a"] * x, jnp.sin(p["b"])).sum()


def from_a_condition_by_rule(p: Params, x: jax.Array) -> jax.Array:
    return _from_a_condition(p["a"], p["b"]).sum()


def a_rule_above_a_rule(p: Params, x: jax.Array) -> jax.Array:
    return _all_zeros(_from_nothing(p["a"], p["b"]), p["c"]).sum()


@jax.custom_vjp
def _injected(x: jax.Array, w: jax.Array) -> jax.Array:
    return x


_injected.defvjp(lambda x, w: (x, w), lambda w, g: (g, 2 * w))


def injected_by_rule(p: Params, x: jax.Array) -> jax.Array:
    """The loss does not depend on `a`, but `a` gets a gradient."""
    return _injected(p["b"], p["a"]).sum()


@jax.custom_jvp
def _half(a: jax.Array, b: jax.Array) -> jax.Array:
    return a * b


@_half.defjvp
def _half_rule(primals: Any, tangents: Any) -> Any:
    return _half(*primals), primals[0] * tangents[1]


def a_rule_forwards(p: Params, x: jax.Array) -> jax.Array:
    return jax.jit(_half)(p["a"], p["b"]).sum()


def in_one_branch(p: Params, x: jax.Array) -> jax.Array:
    return lax.cond(x[0] > 0, lambda: (p["a"] * stop(p["b"])).sum(), lambda: (p["a"] * x).sum())


def in_another_branch(p: Params, x: jax.Array) -> jax.Array:
    """One branch with a gradient is enough, whether it is taken or not."""
    return lax.cond(x[0] > 0, lambda: (p["a"] * stop(p["b"])).sum(), lambda: p["b"].sum())


def in_all_branches(p: Params, x: jax.Array) -> jax.Array:
    branches = [lambda: stop(p["a"]).sum(), lambda: (stop(p["a"]) * p["b"]).sum(), lambda: 0.0]
    return lax.switch(x[0].astype(int), branches)


def the_choice_of_a_branch(p: Params, x: jax.Array) -> jax.Array:
    return lax.cond(p["a"].sum() > 0, lambda: p["b"].sum(), lambda: 2 * p["b"].sum())


def while_without_gradient(p: Params, x: jax.Array) -> jax.Array:
    start = stop(p["a"])
    grown = lax.while_loop(lambda c: c.sum() < stop(p["c"]).sum() * 9, lambda c: 2 * c, start)
    return (grown * p["b"]).sum()


def how_long_a_while_goes_on(p: Params, x: jax.Array) -> jax.Array:
    rounds = lax.while_loop(lambda n: n < stop(p["a"]).sum(), lambda n: n + 1, 0)
    return p["b"].sum() * rounds


def compared_rounded_sorted(p: Params, x: jax.Array) -> jax.Array:
    return jnp.where(p["a"] > 0, jnp.round(p["b"]), jnp.sort(p["c"])).sum()


def by_position(p: Params, x: jax.Array) -> jax.Array:
    return p["b"][jnp.argmax(p["a"])] + p["c"][p["b"].astype(int)].sum()


def its_shape_alone(p: Params, x: jax.Array) -> jax.Array:
    return (p["a"] * jnp.zeros_like(p["b"]).size).sum()


def printed_alone(p: Params, x: jax.Array) -> jax.Array:
    jax.debug.callback(lambda b: None, p["b"])
    return p["a"].sum()


def returned_by_a_layer_and_dropped(p: Params, x: jax.Array) -> jax.Array:
    return jax.jit(lambda a, b: (a * x, jnp.exp(b)))(p["a"], p["b"])[0].sum()


def side_by_side(p: Params, x: jax.Array) -> jax.Array:
    a, b = lax.optimization_barrier((p["a"], p["b"]))
    return (a * stop(b)).sum() + 0 * lax.optimization_barrier((p["a"], p["c"]))[0].sum()


def dead_relu(p: Params, x: jax.Array) -> jax.Array:
    """A gradient that happens to be zero."""
    return jax.nn.relu(p["a"] * x - 100).sum() + jnp.clip(p["b"], 5, 6).sum()


def times_a_zero_of_the_data(p: Params, x: jax.Array) -> jax.Array:
    return (p["a"] * (x - x)).sum()


def times_a_zero_that_is_written(p: Params, x: jax.Array) -> jax.Array:
    """The gradient is NaN where `a` is infinite, so this is not a stop."""
    return (p["a"] * 0.0).sum() + (p["b"] * jnp.zeros(2)).sum()


def written_in_place(p: Params, x: jax.Array) -> jax.Array:
    kept = jax.new_ref(jnp.zeros(2))
    kept[...] = p["a"] * x
    kept[0] = kept[1] * stop(p["b"])[0]
    return kept[...].sum()


def written_in_place_by_a_loop(p: Params, x: jax.Array) -> jax.Array:
    """A step reads values that the step before wrote."""
    kept = jax.new_ref(jnp.zeros(()))

    def layer(carry: None, row: Any) -> tuple[None, jax.Array]:
        before = kept[...]
        kept[...] = row[0] * stop(row[1])
        return None, before

    return lax.scan(layer, None, (p["a"], p["b"]))[1].sum()


def bfloat16(p: Params, x: jax.Array) -> jax.Array:
    low = {name: leaf.astype(jnp.bfloat16) for name, leaf in p.items()}
    return plain({"a": stop(low["a"]), "b": low["b"]}, x.astype(jnp.bfloat16)).astype(jnp.float32)


def over_devices(p: Params, x: jax.Array) -> jax.Array:
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    @partial(jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("data")), out_specs=PartitionSpec())
    def summed(p: Params, x: jax.Array) -> jax.Array:
        one, two = lax.psum((p["a"] * x, stop(p["b"]) * x), "data")
        return (one + two).sum() + 0 * two.sum()

    return summed({name: p[name] for name in "ab"}, x)


def solved_and_transformed(p: Params, x: jax.Array) -> jax.Array:
    matrix = jnp.diag(p["a"]) + jnp.diag(stop(p["b"]))
    return jnp.linalg.solve(matrix, x).sum() + jnp.fft.rfft(p["c"]).real.sum()


def nothing(p: Params, x: jax.Array) -> jax.Array:
    return x.sum()


# The loss, then what is reached, stopped and unused.
LOSSES: list[tuple[Callable[..., Any], str, str, str]] = [
    (plain, "ab", "", "c"),
    (stopped_at_use, "b", "a", "c"),
    (stopped_once_of_twice, "ab", "", "c"),
    (stopped_above, "c", "ab", ""),
    (in_nested_jits, "b", "a", "c"),
    (in_scan, "bc", "a", ""),
    (in_the_carry_of_scan, "b", "a", "c"),
    (late_in_the_carry, "ab", "", "c"),
    (in_a_scan_without_steps, "a", "", "bc"),
    (in_nested_scans, "b", "a", "c"),
    (in_remat, "b", "a", "c"),
    (in_a_remat_of_scan, "bc", "a", ""),
    (in_vmap, "b", "a", "c"),
    (none_by_rule, "b", "a", "c"),
    (zeros_by_rule, "b", "a", "c"),
    (zeros_of_the_host_by_rule, "b", "a", "c"),
    (far_behind_a_zero_rule, "b", "a", "c"),
    (a_zero_rule_in_scan, "b", "ac", ""),
    (from_nothing_by_rule, "ab", "", "c"),
    (from_a_condition_by_rule, "ab", "", "c"),
    (a_rule_above_a_rule, "ab", "c", ""),
    (injected_by_rule, "ab", "", "c"),
    (a_rule_forwards, "b", "a", "c"),
    (in_one_branch, "a", "b", "c"),
    (in_another_branch, "ab", "", "c"),
    (in_all_branches, "b", "a", "c"),
    (the_choice_of_a_branch, "b", "a", "c"),
    (while_without_gradient, "b", "ac", ""),
    (how_long_a_while_goes_on, "b", "a", "c"),
    (compared_rounded_sorted, "c", "ab", ""),
    (by_position, "bc", "a", ""),
    (its_shape_alone, "a", "", "bc"),
    (printed_alone, "a", "", "bc"),
    (returned_by_a_layer_and_dropped, "a", "", "bc"),
    (side_by_side, "a", "b", "c"),
    (dead_relu, "ab", "", "c"),
    (times_a_zero_of_the_data, "a", "", "bc"),
    (times_a_zero_that_is_written, "ab", "", "c"),
    (written_in_place, "a", "b", "c"),
    (written_in_place_by_a_loop, "a", "b", "c"),
    (bfloat16, "b", "a", "c"),
    (over_devices, "a", "b", "c"),
    (solved_and_transformed, "ac", "b", ""),
    (nothing, "", "", "abc"),
]
